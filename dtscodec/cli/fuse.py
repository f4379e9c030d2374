"""``dtscodec fuse``: packs of several tasks -> the pack of an unseen task."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.names import task_name
from dtscodec.cli.result_lines import note_lines

if TYPE_CHECKING:
    from dtscodec.fusion import HeadSimilarity, VectorSimilarity
    from dtscodec.fusion.fuse import FuseReport


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Write a pack whose delta is the weighted sum of the deltas of other packs against one base. The weight of a "
        "pack is the cosine of its task's head and the unseen task's head (--like), divided by the sum of all "
        "cosines; negative cosines count as 0. --vectors compares other vectors in place of heads, and --weights "
        "gives the weights. The head of --like is stored exactly in the pack."
    )
    parser.epilog = (
        "The base is read only if a pack stores exactly a tensor that the base has, if packs use different tensors of "
        "it, or if heads that are compared are stored as deltas. Without --base it is searched where decode searches."
    )
    parser.add_argument("packs", metavar="PACK", nargs="+", help="a pack of another task; all are against one base")
    parser.add_argument(
        "--like",
        metavar="HEAD",
        help="the unseen task: a checkpoint, pack or file with its head; with --vectors, its name among them or a "
        "file of one vector",
    )
    parser.add_argument("--weights", type=_weights, metavar="W,W,...", help="mixing weights, one for each pack")
    parser.add_argument(
        "--vectors", metavar="FILE", help="safetensors file with a vector for each task by name, or a row per class"
    )
    parser.add_argument(
        "--head", metavar="HEAD", help="checkpoint, pack or file with the head to store, if it is not --like"
    )
    parser.add_argument(
        "--minus",
        metavar="HEAD",
        help="initial head that all heads were trained from; subtracted before they are compared",
    )
    parser.add_argument("--plain-sum", action="store_true", help="use negative weights, too, as the authors of DTS do")
    arguments.add_base(parser)
    parser.add_argument("-o", "--output", metavar="PACK", required=True, help="the pack to write")
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--size",
        dest="target",
        type=arguments.pack_size,
        help="largest pack file: 0.5%%, 2MB or 0.08bpp (default: 0.08bpp plus the tensors stored exactly)",
    )
    target.add_argument(
        "--error", dest="target", type=arguments.error, help="smallest pack with at most this relative error (0.6)"
    )
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_json(parser)
    arguments.add_force(parser)
    parser.set_defaults(run=run, misused=parser.error)


def _weights(text: str) -> list[float]:
    """Parse numbers separated by commas.

    >>> _weights("0.5,0.3,-0.2")
    [0.5, 0.3, -0.2]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.5,0.3,0.2, got {text!r}") from None


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import dtscodec
    from dtscodec.fusion.similarity import are_indistinct

    like, name = _likeness(options), task_name(options.output)
    with dtscodec.open(options.packs[0]) as first:
        total = 2 * sum(entry.spec.nbytes for entry in first.index.tensors)
    with progress_bar(name, total) as progress:
        report = dtscodec.fuse(
            options.packs,
            options.output,
            weights=options.weights,
            like=like,
            head=options.head,
            base=options.base,
            target=options.target,
            task=name,
            files=not options.no_files,
            force=options.force,
            progress=progress,
        )
    if report.similarities and are_indistinct(report.similarities):
        console.print_note(
            "all tasks are about equally similar; if heads were trained from one initial head, subtract it (--minus)"
        )
    if options.json:
        console.print_json(asdict(report) | {"path": str(report.path)})
    else:
        console.print_lines(*_table(report), _summary(name, report), *note_lines(name, report))


def _likeness(options: argparse.Namespace) -> "str | HeadSimilarity | VectorSimilarity | None":
    """Return the argument `like` of `dtscodec.fuse`."""
    from dtscodec.fusion import HeadSimilarity, VectorSimilarity

    # For a path alone, `fuse` compares heads.
    if not (options.vectors or options.minus or options.plain_sum):
        like: str | None = options.like
        return like
    if options.like is None:
        options.misused("--vectors, --minus and --plain-sum need the unseen task: give --like")
    if not options.vectors:
        return HeadSimilarity(options.like, options.minus, options.plain_sum)
    if options.minus:
        options.misused("--minus is for heads, so not for --vectors")
    return VectorSimilarity(options.like, options.vectors, options.plain_sum)


def _table(report: "FuseReport") -> list[str]:
    similarities = report.similarities or [None] * len(report.tasks)
    rows = [
        [task, console.number(similarity), console.number(weight)]
        for task, similarity, weight in zip(report.tasks, similarities, report.weights, strict=True)
    ]
    return console.table(["task", "cosine", "weight"], rows)


def _summary(name: str, report: "FuseReport") -> str:
    """Return one line about the pack."""
    head = f", head of {len(report.head)} tensors exact" if report.head else ""
    left = f", {100 * report.left_out:.1f} % of the sum left out" if report.left_out else ""
    error = f"relative error {report.relative_error:.2g}"
    return f"{name}: {console.size(report.pack_bytes)}, {error}{left}{head}, {report.seconds:.1f} s: {report.path}"
