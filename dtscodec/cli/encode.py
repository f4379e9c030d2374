"""``dtscodec encode``: checkpoint -> pack."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, calibrated, console, family
from dtscodec.cli.names import task_name
from dtscodec.cli.progress import progress_bar
from dtscodec.cli.remedies import message
from dtscodec.errors import BackendError, CheckpointError, EncodeError, JournalMismatchError, OutputError
from dtscodec.storage.errors import write_errors
from dtscodec.storage.paths import as_output_path, is_remote

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dtscodec import Base, Best, EncodeConfig, EncodeReport, Paper
    from dtscodec.encoding.journal import Journal

EPILOG = """\
One fine-tune gives ./NAME.dts.safetensors, or the file that -o names. Several, or a directory after -o, give
DIR/packs/NAME.safetensors and DIR/dtscodec.json. NAME is the file's or directory's, or what NAME=PATH says.

With --merge METHOD all are fine-tunes: their merged base becomes DIR/base.safetensors, which decode finds.

Finished tensors are kept in OUT.part (DIR/dtscodec.part) until all is done: if it is cut off, the same command
goes on from there.
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
    parser.add_argument(
        "--preset",
        choices=["best", "paper"],
        default="best",
        help="the encoder: the one that serves behaviour best (default), or DTS as published",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--size",
        dest="target",
        type=arguments.pack_size,
        help="largest pack file: share of the fine-tune (0.5%%), bytes (2MB), bits a parameter (default: 0.08bpp)",
    )
    target.add_argument(
        "--rank", dest="target", type=arguments.rank, help="share of min(m, n), or an integer rank, for every matrix"
    )
    target.add_argument(
        "--error",
        dest="target",
        type=arguments.error,
        help="the smallest pack whose delta has at most this relative error (0.6)",
    )
    parser.add_argument(
        "--levels",
        choices=["matrix", "vector"],
        help="of the preset paper: level tables per factor, or per singular vector",
    )
    parser.add_argument(
        "--raw",
        metavar="GLOB",
        action="append",
        default=[],
        help="tensors to keep exactly (the preset paper: besides classifier* and score*); repeatable",
    )
    parser.add_argument(
        "--map",
        metavar="OLD=NEW",
        type=arguments.rename,
        action="append",
        default=[],
        help="names of the fine-tune that begin with OLD begin with NEW in the base; repeatable",
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--workers",
        metavar="N",
        type=arguments.count,
        default=1,
        help="processes that decompose and code tensors, of one thread each; the pack is the same (default: 1)",
    )
    workers.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="scheduler of a Dask cluster whose workers do that, and find the checkpoints at the same paths",
    )
    parser.add_argument("--device", default="cpu", help="what multiplies large matrices, such as cuda (default: cpu)")
    parser.add_argument(
        "--no-resume", action="store_true", help="forget the finished tensors of an encode that was cut off (OUT.part)"
    )
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_force(parser)
    calibrated.add_to(parser)
    family.add_to(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.packs.directory import open_folder
    from dtscodec.storage.upload import check_new

    calibration, shared = calibrated.of(options), family.of(options)
    fine_tunes = _named([options.base, *options.fine_tunes] if shared else options.fine_tunes)
    directory = _directory(options.output, len(fine_tunes))
    outputs = _outputs(list(fine_tunes), options.output, directory)
    part = _part(directory or next(iter(outputs.values())), is_directory=directory is not None)
    for out in () if part.exists() else outputs.values():
        check_new(out, options.force)
    with (
        open_folder(directory) if directory else nullcontext(),
        shared.all_or_nothing(directory, outputs.values(), part) if shared and directory else nullcontext(),
        _resumable(part, options.no_resume) as journal,
    ):
        if shared and directory:
            options.base = shared.make(directory, fine_tunes, journal)
        figures = shared.figures if shared else {}
        _encode_all(options, fine_tunes, outputs, directory, journal, figures, calibration)


def _part(out: Path, is_directory: bool) -> Path:
    """Where finished tensors are kept: beside the output, or here if that is remote."""
    if is_directory:
        return Path("dtscodec.part") if is_remote(out) else out / "dtscodec.part"
    return Path(f"{out.name}.part") if is_remote(out) else Path(f"{out}.part")


@contextmanager
def _resumable(part: Path, fresh: bool) -> Iterator["Journal"]:
    """The journal of this run. What ends the run early tells of it, if it is kept."""
    from dtscodec.encoding.journal import Journal

    try:
        with Journal(part, fresh) as journal:
            if len(journal):
                console.note(f"{len(journal)} results of an earlier run in {part}")
            yield journal
    except (KeyboardInterrupt, Exception) as error:
        if not part.exists() or isinstance(error, JournalMismatchError):
            raise
        way_on = (
            f"finished tensors are kept in {part}: the same command goes on from there if its inputs stay the same, "
            "--no-resume starts afresh"
        )
        if not isinstance(error, (KeyboardInterrupt, CheckpointError, OutputError, BackendError)):
            console.note(way_on)
            raise
        raise type(error)("; ".join([*filter(None, [message(error)]), way_on])) from error


def _encode_all(
    options: argparse.Namespace,
    fine_tunes: dict[str, str],
    outputs: dict[str, Path],
    directory: Path | None,
    journal: "Journal",
    figures: Mapping[str, Mapping[str, float]],
    calibration: calibrated.Samples | str | None,
) -> None:
    from dtscodec import Base
    from dtscodec.packs.directory import list_pack
    from dtscodec.storage.staging import staging_folder_for

    config = _config(options, calibration if isinstance(calibration, str) else None)
    samples = calibration if isinstance(calibration, calibrated.Samples) else None
    out = next(iter(outputs.values()))
    with (
        staging_folder_for(out, options.base) as staging,
        Base(options.base, staging, whole=True) as base,
        _workers(options) as executor,
    ):
        for name, path in fine_tunes.items():
            report = _encode_one(base, name, path, outputs[name], config, options.force, executor, journal, samples)
            if directory:
                about = figures.get(name, {})
                list_pack(directory, name, report.path, report.pack_bytes, report.pack_id, options.base, about)


def _workers(options: argparse.Namespace) -> "AbstractContextManager[Executor | None]":
    """Who is to do the work; nobody but this process, if nothing is said."""
    from dtscodec.executors.dask_cluster import cluster
    from dtscodec.executors.processes import processes

    if options.dask:
        return cluster(options.dask)
    return processes(options.workers) if options.workers > 1 else nullcontext()


def _config(options: argparse.Namespace, grams: str | None) -> "EncodeConfig":
    """The settings; those that exclude each other are wrong usage."""
    from dtscodec import EncodeConfig

    try:
        return EncodeConfig(
            options.target,
            _preset(options, grams),
            raw=tuple(options.raw),
            renames=tuple(options.map),
            files=not options.no_files,
            device=options.device,
        )
    except ValueError as error:
        parser: argparse.ArgumentParser = options.parser
        parser.error(message(error))


def _preset(options: argparse.Namespace, grams: str | None) -> "Best | Paper":
    from dtscodec import Best, Paper

    if options.preset == "best":
        if options.levels:
            options.parser.error("--levels is an option of the preset paper")
        return Best(grams=grams, damping=calibrated.DAMPING if options.esd is None else options.esd)
    if grams is not None or options.esd is not None:
        options.parser.error("Gram matrices are for the preset best")
    return Paper(options.levels or "matrix")


def _encode_one(
    base: "Base",
    name: str,
    path: str,
    out: Path,
    config: "EncodeConfig",
    force: bool,
    executor: "Executor | None",
    journal: "Journal",
    samples: calibrated.Samples | None,
) -> "EncodeReport":
    from dtscodec import encode
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.encoding.encode import reads
    from dtscodec.storage.staging import staging_folder_for

    with staging_folder_for(out, path) as staging, open_checkpoint(path, staging, whole=True) as checkpoint:
        total = reads(config) * sum(spec.nbytes for spec in checkpoint.specs.values())

        def encode_to(out: Path, config: "EncodeConfig", force: bool) -> "EncodeReport":
            with progress_bar(name, total) as progress:
                return encode(
                    base,
                    checkpoint,
                    out,
                    config,
                    task=name,
                    force=force,
                    progress=progress,
                    executor=executor,
                    journal=journal,
                )

        if samples:
            report, fitted = samples.encode(encode_to, config, base, path, out, force, journal)
        else:
            report, fitted = encode_to(out, config, force), None
    sizes = f"{console.size(report.fine_bytes)} -> {console.size(report.pack_bytes)}"
    share = console.percent(report.pack_bytes, report.fine_bytes)
    left_out = f", {100 * report.left_out:.1f} % of the delta left out" if report.left_out else ""
    error = f"relative error {report.relative_error:.2f}"
    if samples and fitted:
        error += f" before the fit to {fitted.samples} {samples.kind}, {samples.gain(fitted)}"
    elif samples and samples.fit:
        error += ", nothing to fit"
    console.lines(f"{name}: {sizes} ({share}), {error}{left_out}, {report.seconds:.1f} s: {out}")
    return report


def _named(fine_tunes: list[str]) -> dict[str, str]:
    """Names and paths of the fine-tunes."""
    named: dict[str, str] = {}
    for text in fine_tunes:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists() or "/" in name:
            name, path = task_name(text), text
        if not name or not name.isprintable():
            raise EncodeError(f"{text}: expected a printable name, got {name!r}; say NAME={path}")
        if name in named:
            raise EncodeError(f"{path}: expected a name of its own, got {name!r} again; say NAME={path}")
        named[name] = path
    return named


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
