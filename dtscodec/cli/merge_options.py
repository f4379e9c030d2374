"""The options of merge methods: for `merge`, and for `encode --merge`."""

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtscodec.merging.methods.registry import Method

METHODS = ("average", "task-arithmetic", "ties", "tsv-m", "iso-c", "iso-cts", "esm")
"""Names of `dtscodec.merging.methods.registry.METHODS`, without importing torch."""

_NUMBERS = {
    "alpha": "how far merged moves are followed (all but average; default: 1, task-arithmetic 0.3)",
    "keep": "of ties: share of each task's moves that stays, the largest (default: 0.2)",
    "common": "of iso-cts: share of directions that is common (default: 0.8)",
    "damping": "of esm: share of the mean input's power that is added to each (default: 0.01; published: 0)",
}
_OFF = {
    "task_scaling": "no scaling among tasks",
    "dimension_scaling": "no scaling among inputs",
    "layer_scaling": "no scaling among layers",
    "orthogonal": "leave tasks' directions as they are",
}
_ON = {
    "energy_scaling": "scale directions by their energy, too",
    "alpha_everywhere": "alpha multiplies what is no matrix, and matrices of unknown inputs, too",
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
    for switches, before, value in ((_OFF, "no-", False), (_ON, "", True)):
        for name, text in switches.items():
            flag = f"--{before}{name.replace('_', '-')}"
            group.add_argument(flag, dest=name, action="store_const", const=value, help=f"of esm: {text}")


def method_of(name: str, options: argparse.Namespace) -> "Method":
    """The method with the options that were given; ConfigError for those that it does not have."""
    from dtscodec.merging.methods.registry import make_method

    return make_method(name, given(options))


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Options of methods that were given."""
    names = [*_NUMBERS, "combine", *_OFF, *_ON]
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value
