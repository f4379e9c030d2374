"""The options of merge methods: for `merge`, and for `encode --merge`."""

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtscodec.merging.methods import Method

METHODS = ("average", "task-arithmetic", "ties", "tsv-m", "iso-c", "iso-cts", "esm")
"""Names of `dtscodec.merging.methods.METHODS`, without importing torch."""

_NUMBERS = {
    "alpha": "how far merged moves are followed (all but average; default: 1, task-arithmetic 0.3)",
    "keep": "of ties: share of each task's moves that stays, the largest (default: 0.2)",
    "common": "of iso-cts: share of directions that is common (default: 0.8)",
    "damping": "of esm: share of the mean input's power that is added to each (default: 0.01; published: 0)",
}
_OFF = {
    "task_scaling": "among tasks",
    "dimension_scaling": "among inputs",
    "layer_scaling": "among layers",
}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    group = parser.add_argument_group("options of merge methods")
    for name, text in _NUMBERS.items():
        group.add_argument(f"--{name}", metavar="X", type=_number, help=text)
    combine = "of ties: mean (default) or sum of what agrees; with sum --alpha 0.3 is usual"
    group.add_argument("--combine", choices=["mean", "sum"], help=combine)
    grams = "of esm: Gram matrices of a fine-tune's inputs; once for each, in their order"
    group.add_argument("--grams", metavar="FILE", action="append", default=[], help=grams)
    for name, among in _OFF.items():
        flag = f"--no-{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, action="store_const", const=False, help=f"of esm: no scaling {among}")
    group.add_argument(
        "--energy-scaling", action="store_const", const=True, help="of esm: scale directions by their energy, too"
    )
    group.add_argument(
        "--no-orthogonal",
        dest="orthogonal",
        action="store_const",
        const=False,
        help="of esm: leave tasks' directions as they are",
    )


def method_of(name: str, options: argparse.Namespace) -> "Method":
    """The method with the options that were given; ConfigError for those that it does not have."""
    from dtscodec.merging.methods import make_method

    return make_method(name, given(options))


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Options of methods that were given."""
    names = [*_NUMBERS, "combine", *_OFF, "energy_scaling", "orthogonal"]
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value
