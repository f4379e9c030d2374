"""``dtscodec encode``: checkpoint -> pack."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console, encode_options
from dtscodec.cli.console import progress_bar
from dtscodec.cli.fit import kl_change
from dtscodec.cli.names import name_fine_tunes
from dtscodec.cli.resume import journal_path, open_journal
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.storage.access import Access
from dtscodec.storage.errors import write_errors
from dtscodec.storage.paths import as_output_path

if TYPE_CHECKING:
    from dtscodec import Base, EncodeConfig, EncodeReport
    from dtscodec.calibration.fit import FitReport
    from dtscodec.checkpoints.checkpoint import Checkpoint

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
    fine_tunes = name_fine_tunes(options.fine_tunes)
    if options.calibration:
        _check_calibration(options.calibration, fine_tunes.values())
    directory = _directory(options.output, len(fine_tunes))
    config = encode_options.config_of(options, tuple(options.map))
    if directory is None:
        ((task, path),) = fine_tunes.items()
        _encode_file(options, task, path, as_output_path(options.output or f"{task}.dts.safetensors"), config)
    else:
        _encode_directory(options, fine_tunes, directory, config)


def _check_calibration(samples: str, fine_tunes: Iterable[str]) -> None:
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
    from dtscodec.storage.staging import staging_folder_for
    from dtscodec.storage.upload import check_new

    part = journal_path(out, is_directory=False)
    if not part.exists():
        check_new(out, options.force)
    encoder = _Encoder(options, {task: path})
    with (
        open_journal(part, options.no_resume) as journal,
        staging_folder_for(out, options.base, path) as staging,
        Base(options.base, Access(staging, whole=True)) as base,
        encode_options.open_executor(options) as executor,
        open_checkpoint(path, Access(staging, whole=True)) as fine,
        progress_bar(task, passes(config) * sum(spec.nbytes for spec in fine.specs.values())) as progress,
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


def _encode_directory(
    options: argparse.Namespace, fine_tunes: dict[str, str], directory: Path, config: "EncodeConfig"
) -> None:
    """Write packs of several fine-tunes into a directory."""
    from dtscodec import encode_all
    from dtscodec.packs.directory import open_pack_directory, pack_path
    from dtscodec.storage.upload import check_new

    part = journal_path(directory, is_directory=True)
    for task in () if part.exists() else fine_tunes:
        check_new(pack_path(directory, task), options.force)
    encoder = _Encoder(options, fine_tunes)
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
            progress=progress_bar,
            on_pack=encoder.print_report,
            encode_one=encoder,
        )


class _Encoder:
    """Encodes one fine-tune at a time, calibrated if samples are given, and prints a line about each pack."""

    def __init__(self, options: argparse.Namespace, fine_tunes: dict[str, str]) -> None:
        self._samples, self._device, self._paths = options.calibration, options.device, fine_tunes
        self._fits: dict[str, str] = {}

    def __call__(
        self, base: "Base", fine_tune: "Checkpoint", out: Path, config: "EncodeConfig", *, task: str, **run: Any
    ) -> "EncodeReport":
        """Write a pack; see `dtscodec.encode`."""
        from dtscodec import encode, encode_calibrated
        from dtscodec.encoding.config import STEPS

        if not self._samples:
            return encode(base, fine_tune, out, config, task=task, **run)
        with progress_bar("fit", STEPS, unit=" steps") as fit_progress:
            report, fitted = encode_calibrated(
                base,
                self._paths[task],
                out,
                config,
                samples=self._samples,
                device=self._device,
                fit_progress=fit_progress,
                task=task,
                **run,
            )
        self._fits[task] = self._describe_fit(fitted)
        return report

    def _describe_fit(self, fitted: "FitReport | None") -> str:
        from dtscodec.evaluation.samples import sample_kind

        if fitted is None:
            return ", nothing to fit"
        count = f"{fitted.samples} {sample_kind(self._samples)}"
        return f" before the fit to {count}, {kl_change(fitted, 'see dtscodec fit --steps')}"

    def print_report(self, task: str, report: "EncodeReport") -> None:
        """Print a line about a pack."""
        console.lines(describe(task, report, self._fits.get(task, "")))


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
    """Return the directory of packs that is to be written; None for a single pack."""
    path = as_output_path(output or ".")
    with write_errors(path):
        return path if count > 1 or (output and (output.endswith("/") or path.is_dir())) else None
