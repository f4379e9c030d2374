"""``dtscodec compare``: how close a pack is to its fine-tune."""

import argparse
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, show
from dtscodec.cli.progress import progress_bar

if TYPE_CHECKING:
    from dtscodec import Comparison
    from dtscodec.codec.compare import Closeness


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="measure how close a pack is to its fine-tune",
        description="Decode a pack and compare it with its fine-tune: relative error and cosine of the deltas, the "
        "decoded delta's norm by the true one's, bits per parameter, bytes. The total is over coded tensors.",
    )
    parser.add_argument("pack", metavar="PACK")
    parser.add_argument("fine_tune", metavar="FT")
    arguments.add_base(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import dtscodec

    with dtscodec.open(options.pack) as pack:
        total = sum(entry.spec.nbytes for entry in pack.index.tensors)
        with progress_bar("compare", total) as progress:
            comparison = dtscodec.compare(pack, options.fine_tune, options.base, progress=progress)
    if options.json:
        show.facts(_facts(comparison))
    else:
        show.lines(*_table(comparison))


def _figures(closeness: "Closeness | None") -> dict[str, float | None]:
    if closeness is None:
        return {"relative_error": None, "cosine": None, "norm_ratio": None}
    return {
        "relative_error": closeness.relative_error,
        "cosine": closeness.cosine,
        "norm_ratio": closeness.norm_ratio,
    }


def _numbers(closeness: "Closeness | None") -> list[str]:
    return [show.number(value) for value in _figures(closeness).values()]


def _facts(comparison: "Comparison") -> dict[str, Any]:
    tensors = [
        {
            "name": tensor.size.name,
            "kind": tensor.size.kind,
            "exact": tensor.exact,
            **_figures(tensor.closeness),
            "bits_per_parameter": tensor.bits_per_parameter,
            "bytes": tensor.size.size,
        }
        for tensor in comparison.tensors
    ]
    return {
        **_figures(comparison.total),
        "bits_per_parameter": comparison.bits_per_parameter,
        "bytes": comparison.pack_bytes,
        "fine_tune_bytes": comparison.fine_bytes,
        "tensors": tensors,
    }


def _table(comparison: "Comparison") -> list[str]:
    rows = []
    for tensor in comparison.tensors:
        if tensor.exact or tensor.closeness is None:
            figures = ["exact" if tensor.exact else "differs"] * 3
        else:
            figures = _numbers(tensor.closeness)
        size = [f"{tensor.bits_per_parameter:.3f}", f"{tensor.size.size:,}"]
        rows.append([tensor.size.name, tensor.size.kind, *figures, *size])
    size = [f"{comparison.bits_per_parameter:.3f}", f"{comparison.pack_bytes:,}"]
    rows.append(["all", "", *_numbers(comparison.total), *size])
    return show.table(["tensor", "kind", "error", "cosine", "norm ratio", "bits/param", "bytes"], rows, left=2)
