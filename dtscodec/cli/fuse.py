"""``dtscodec fuse``: packs of several tasks -> the pack of one that was not trained."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.names import task_name
from dtscodec.cli.progress import progress_bar

if TYPE_CHECKING:
    from dtscodec.fusion.fuse import FuseReport


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "fuse",
        help="make a pack for an unseen task out of packs of others",
        description="Add up what packs of one base change, each by its weight, and write the sum as a pack. A weight "
        "is the cosine of the task's vector to that of the unseen task, as a share of all; negative ones count 0. "
        "Vectors are heads, or what --vectors has; or weights are told with --weights. A head that --like names "
        "becomes the pack's, exactly.",
        epilog="The base is needed only if a pack stores exactly what the base has too, if packs use different tensors "
        "of it, or if heads that are compared are differences from it; else it is looked for as decode does.",
    )
    parser.add_argument("packs", metavar="PACK", nargs="+")
    parser.add_argument(
        "--like",
        metavar="HEAD",
        help="the unseen task: a checkpoint, pack or file with its head; with --vectors a name there, or a file of one "
        "vector",
    )
    parser.add_argument("--weights", type=_weights, metavar="W,W,...", help="one for each pack, taken as they are")
    parser.add_argument(
        "--vectors", metavar="FILE", help="safetensors: for each task a vector, or one of each of its classes"
    )
    parser.add_argument("--head", help="checkpoint, pack or file with the unseen task's head, if not --like's")
    parser.add_argument("--minus", metavar="HEAD", help="initial head that is subtracted from heads before comparing")
    parser.add_argument("--plain-sum", action="store_true", help="let negative cosines count, as the authors of DTS do")
    arguments.add_base(parser)
    parser.add_argument("-o", "--output", metavar="PACK", required=True, help="the pack to write")
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--size",
        dest="target",
        type=arguments.pack_size,
        help="largest pack file: 0.5%%, 2MB or 0.08bpp (default: 0.08bpp beside what is exact)",
    )
    target.add_argument(
        "--error", dest="target", type=arguments.error, help="the smallest pack with at most this relative error (0.6)"
    )
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_json(parser)
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def _weights(text: str) -> list[float]:
    """Numbers with commas between them.

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

    name = task_name(options.output)
    with dtscodec.open(options.packs[0]) as first:
        total = 2 * sum(entry.spec.nbytes for entry in first.index.tensors)
    with progress_bar(name, total) as progress:
        report = dtscodec.fuse(
            options.packs,
            options.output,
            weights=options.weights,
            like=options.like,
            vectors=options.vectors,
            minus=options.minus,
            plain_sum=options.plain_sum,
            head=options.head,
            base=options.base,
            target=options.target,
            task=name,
            files=not options.no_files,
            force=options.force,
            progress=progress,
        )
    if report.similarities and are_indistinct(report.similarities):
        console.note(
            "all tasks are about equally like it; of heads trained from one initial head, subtract it (--minus)"
        )
    if options.json:
        console.facts(asdict(report) | {"path": str(report.path)})
    else:
        console.lines(*_table(report), _summary(name, report))


def _table(report: "FuseReport") -> list[str]:
    similarities = report.similarities or [None] * len(report.tasks)
    rows = [
        [task, console.number(similarity), console.number(weight)]
        for task, similarity, weight in zip(report.tasks, similarities, report.weights, strict=True)
    ]
    return console.table(["task", "cosine", "weight"], rows)


def _summary(name: str, report: "FuseReport") -> str:
    """One line for the pack."""
    head = f", head of {len(report.head)} tensors exact" if report.head else ""
    left = f", {100 * report.left_out:.1f} % of the sum left out" if report.left_out else ""
    error = f"relative error {report.relative_error:.2g}"
    return f"{name}: {console.size(report.pack_bytes)}, {error}{left}{head}, {report.seconds:.1f} s: {report.path}"
