"""``dtscodec encode``: checkpoint -> pack."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, encode_options
from dtscodec.cli.console import progress_bar
from dtscodec.cli.names import name_fine_tunes
from dtscodec.cli.pack_encoder import PackEncoder
from dtscodec.cli.resume import journal_path, open_journal
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.storage.paths import as_output_path

if TYPE_CHECKING:
    from dtscodec import EncodeConfig
    from dtscodec.encoding.encode_all import ProgressOf

EPILOG = """\
One fine-tune gives ./NAME.dts.safetensors, or the file that -o names. Several, or a directory after -o, give
DIR/packs/NAME.safetensors and DIR/dtscodec.json. NAME is the file's or directory's, or what NAME=PATH says.

Results are stored in OUT.part (DIR/dtscodec.part) until all is done: if a run is interrupted, the same
command resumes it.
"""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = "Store fine-tunes as packs against their base."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("base", help="the base checkpoint: file, index or directory, also remote, such as s3://...")
    parser.add_argument("fine_tunes", metavar="FT", nargs="+", help="a fine-tune of it, or NAME=PATH")
    parser.add_argument("-o", "--output", metavar="OUT", help="the pack, or a directory of packs")
    encode_options.add_to(parser)
    parser.add_argument(
        "--map",
        metavar="OLD=NEW",
        type=arguments.rename,
        action="append",
        default=[],
        help="names of the fine-tune that begin with OLD begin with NEW in the base; repeatable",
    )
    arguments.add_dequantize_base(parser)
    add_calibration(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add the options that fit packs to samples; `PackEncoder` does what they ask."""
    parser.add_argument(
        "--calibration",
        metavar="SAMPLES",
        help="texts or images, as for compare --samples: each pack is fitted to its fine-tune's outputs on them (for "
        "the details: dtscodec fit)",
    )
    arguments.add_offload(parser)
    bounds = parser.add_mutually_exclusive_group()
    bounds.add_argument(
        "--max-kl",
        dest="bound",
        metavar="NATS",
        type=arguments.max_kl,
        help="with --calibration: the smallest packs whose KL from the fine-tune is at most this, with 95 %% "
        "confidence; --size is then the largest size, by default the fine-tune's own",
    )
    bounds.add_argument(
        "--min-agreement",
        dest="bound",
        metavar="SHARE",
        type=arguments.min_agreement,
        help="the same for the share of equal predictions (97%%)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    fine_tunes = name_fine_tunes(options.fine_tunes)
    check_bound(options)
    if options.calibration:
        check_calibration(options.calibration, fine_tunes.values())
    directory = _directory(options.output, len(fine_tunes))
    config = encode_options.config_of(options, tuple(options.map))
    if directory is None:
        ((task, path),) = fine_tunes.items()
        _encode_file(options, task, path, as_output_path(options.output or f"{task}.dts.safetensors"), config)
    else:
        _encode_directory(options, fine_tunes, directory, config)


def check_bound(options: argparse.Namespace) -> None:
    """End the process as wrong usage if a bound is given with options that exclude it."""
    from dtscodec.encoding.targets import Size

    if options.bound is None:
        return
    if not options.calibration:
        options.parser.error("--max-kl and --min-agreement need --calibration")
    if options.exact:
        options.parser.error("--max-kl and --min-agreement exclude --exact")
    if options.preset != "best" or not isinstance(options.target, Size | None):
        options.parser.error("--max-kl and --min-agreement exclude --rank, --error and --preset paper")


def check_calibration(samples: str, fine_tunes: Iterable[str]) -> None:
    """Raise SamplesError or CheckpointError before longer work if packs cannot be fitted."""
    from dtscodec.evaluation.samples import read_samples

    read_samples(Path(samples))
    for path in fine_tunes:
        if not Path(path).is_dir():
            remedy = Remedy("encode it without --calibration, then run dtscodec fit with --model")
            raise CheckpointError(f"{path}: expected a model directory to fit packs to, got weights only", remedy)


def _encode_file(options: argparse.Namespace, task: str, path: str, out: Path, config: "EncodeConfig") -> None:
    """Write the pack of one fine-tune."""
    from dtscodec import Base
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.encoding.encode import passes
    from dtscodec.storage.open_file import Access, check_new, staging_folder_for

    part = journal_path(out, is_directory=False)
    # Before any work; writing the pack checks again.
    if not part.exists():
        check_new(out, options.force)
    encoder = PackEncoder(options, {task: path}, options.base)
    # The journal first: its lock keeps another process from the same output.
    with (
        open_journal(part, options.no_resume) as journal,
        staging_folder_for(out, options.base, path) as staging,
        Base(options.base, Access(staging, whole=True), dequantize=options.dequantize_base) as base,
        encode_options.open_executor(options) as executor,
        open_checkpoint(path, Access(staging, whole=True)) as fine,
        bar_of(options)(task, passes(config) * sum(spec.nbytes for spec in fine.specs.values())) as progress,
    ):
        report = encoder(
            base,
            fine,
            out,
            config,
            task=task,
            force=options.force,
            progress=progress,
            executor=executor,
            journal=journal,
        )
    encoder.print_report(task, report)
    encoder.print_end()


def _encode_directory(
    options: argparse.Namespace, fine_tunes: dict[str, str], directory: Path, config: "EncodeConfig"
) -> None:
    """Write packs of several fine-tunes into a directory."""
    from dtscodec import encode_all
    from dtscodec.packs.directory import open_pack_directory, pack_path
    from dtscodec.storage.open_file import check_new

    part = journal_path(directory, is_directory=True)
    for task in () if part.exists() else fine_tunes:
        check_new(pack_path(directory, task), options.force)
    encoder = PackEncoder(options, fine_tunes, options.base)
    with (
        open_pack_directory(directory),
        open_journal(part, options.no_resume) as journal,
        encode_options.open_executor(options) as executor,
    ):
        encode_all(
            options.base,
            fine_tunes,
            directory,
            config,
            force=options.force,
            executor=executor,
            journal=journal,
            progress=bar_of(options),
            on_pack=encoder.print_report,
            encode_one=encoder,
        )
    encoder.print_end()


def bar_of(options: argparse.Namespace) -> "ProgressOf":
    """Return what shows the progress of an encode: a bar; nothing if a search for a bound has bars of its own."""
    from dtscodec.encoding.encode_all import no_bar

    return progress_bar if options.bound is None else no_bar


def _directory(output: str | None, count: int) -> Path | None:
    """Return the directory of packs to write; None for a single pack."""
    from dtscodec.storage.storage_errors import write_errors

    path = as_output_path(output or ".")
    with write_errors(path):
        # A trailing slash, or a directory that exists, means a directory of packs even for one fine-tune.
        return path if count > 1 or (output and (output.endswith("/") or path.is_dir())) else None
