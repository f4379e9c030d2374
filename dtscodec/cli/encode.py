"""``dtscodec encode``: checkpoint -> pack."""

import argparse
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console, encode_options
from dtscodec.cli.fit import kl_change
from dtscodec.cli.names import name_fine_tunes
from dtscodec.cli.progress import progress_bar
from dtscodec.cli.resume import journal_path, open_journal
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.storage.access import Access
from dtscodec.storage.errors import write_errors
from dtscodec.storage.paths import as_output_path

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dtscodec import Base, EncodeConfig, EncodeReport
    from dtscodec.encoding.journal import Journal

EPILOG = """\
One fine-tune gives ./NAME.dts.safetensors, or the file that -o names. Several, or a directory after -o, give
DIR/packs/NAME.safetensors and DIR/dtscodec.json. NAME is the file's or directory's, or what NAME=PATH says.

Results are stored in OUT.part (DIR/dtscodec.part) until all is done: if a run is interrupted, the same
command resumes it.
"""


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "encode",
        help="store a fine-tune as a pack",
        description="Store fine-tunes as packs against their base.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", help="the base checkpoint: file, index or directory, also s3:// and the like")
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
    parser.add_argument(
        "--calibration",
        metavar="SAMPLES",
        help="texts or images, as for compare --samples: each pack is fitted to its fine-tune's outputs on them (for "
        "the details: dtscodec fit)",
    )
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.packs.directory import open_pack_directory
    from dtscodec.storage.upload import check_new

    fine_tunes = name_fine_tunes(options.fine_tunes)
    if options.calibration:
        _check_calibration(options.calibration, fine_tunes.values())
    directory = _directory(options.output, len(fine_tunes))
    outputs = _outputs(list(fine_tunes), options.output, directory)
    part = journal_path(directory or next(iter(outputs.values())), is_directory=directory is not None)
    for out in () if part.exists() else outputs.values():
        check_new(out, options.force)
    with (
        open_pack_directory(directory) if directory else nullcontext(),
        open_journal(part, options.no_resume) as journal,
    ):
        _encode_all(options, fine_tunes, outputs, directory, journal)


def _check_calibration(samples: str, fine_tunes: Iterable[str]) -> None:
    """Raise SamplesError or CheckpointError before longer work if packs cannot be fitted."""
    from dtscodec.evaluation.samples import read_samples

    read_samples(Path(samples))
    for path in fine_tunes:
        if not Path(path).is_dir():
            remedy = Remedy("encode it without --calibration, then run dtscodec fit with --model")
            raise CheckpointError(f"{path}: expected a model directory to fit packs to, got weights only", remedy)


def _encode_all(
    options: argparse.Namespace,
    fine_tunes: dict[str, str],
    outputs: dict[str, Path],
    directory: Path | None,
    journal: "Journal",
) -> None:
    from dtscodec import Base
    from dtscodec.packs.directory import list_pack
    from dtscodec.storage.staging import staging_folder_for

    config = encode_options.config_of(options, tuple(options.map))
    out = next(iter(outputs.values()))
    with (
        staging_folder_for(out, options.base) as staging,
        Base(options.base, Access(staging, whole=True)) as base,
        encode_options.open_executor(options) as executor,
    ):
        for name, path in fine_tunes.items():
            report = _encode_one(base, name, path, outputs[name], config, options, executor, journal)
            if directory:
                list_pack(directory, name, report.path, report.pack_bytes, report.pack_id, options.base)


def _encode_one(
    base: "Base",
    name: str,
    path: str,
    out: Path,
    config: "EncodeConfig",
    options: argparse.Namespace,
    executor: "Executor | None",
    journal: "Journal",
) -> "EncodeReport":
    from dtscodec import encode, encode_calibrated
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.encoding.config import STEPS
    from dtscodec.encoding.encode import passes
    from dtscodec.evaluation.samples import sample_kind
    from dtscodec.storage.staging import staging_folder_for

    fit = ""
    with staging_folder_for(out, path) as staging, open_checkpoint(path, Access(staging, whole=True)) as checkpoint:
        total = passes(config) * sum(spec.nbytes for spec in checkpoint.specs.values())
        with progress_bar(name, total) as progress:
            run = {"task": name, "force": options.force, "progress": progress, "executor": executor, "journal": journal}
            if not options.calibration:
                report = encode(base, checkpoint, out, config, **run)
            else:
                with progress_bar("fit", STEPS, unit=" steps") as fit_progress:
                    samples = {"samples": options.calibration, "device": options.device, "fit_progress": fit_progress}
                    report, fitted = encode_calibrated(base, path, out, config, **samples, **run)
                fit = ", nothing to fit"
                if fitted:
                    count = f"{fitted.samples} {sample_kind(options.calibration)}"
                    fit = f" before the fit to {count}, {kl_change(fitted, 'see dtscodec fit --steps')}"
    console.lines(describe(name, report, fit))
    return report


def describe(task: str, report: "EncodeReport", fit: str = "") -> str:
    """Return one line about a pack.

    Parameters
    ----------
    task : str
    report : EncodeReport
    fit : str
        What is said of a fit to samples, after the error.
    """
    sizes = f"{console.size(report.fine_bytes)} -> {console.size(report.pack_bytes)}"
    share = console.percent(report.pack_bytes, report.fine_bytes)
    left_out = f", {100 * report.left_out:.1f} % of the delta left out" if report.left_out else ""
    error = f"relative error {report.relative_error:.2f}{fit}"
    return f"{task}: {sizes} ({share}), {error}{left_out}, {report.seconds:.1f} s: {report.path}"


def _directory(output: str | None, count: int) -> Path | None:
    """The directory of packs that is asked for; None if it is a single pack."""
    place = as_output_path(output or ".")
    with write_errors(place):
        return place if count > 1 or (output and (output.endswith("/") or place.is_dir())) else None


def _outputs(names: list[str], output: str | None, directory: Path | None) -> dict[str, Path]:
    from dtscodec.packs.directory import pack_path

    if directory:
        return {name: pack_path(directory, name) for name in names}
    return {names[0]: as_output_path(output or f"{names[0]}.dts.safetensors")}
