"""Tensors that are stored exactly because a pattern names them."""

import glob
from collections.abc import Collection
from fnmatch import fnmatchcase

from dtscodec.errors import ConfigError, Remedy

PAPER_HEADS = ("classifier*", "score*")
"""Patterns of the tensors that the authors of DTS store exactly."""


def is_exact(name: str, patterns: Collection[str]) -> bool:
    """Return whether one of some shell patterns fits the name of a tensor."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(raw: Collection[str], names: Collection[str]) -> None:
    """Check that each pattern fits a tensor: one that fits none is likely misspelled.

    Parameters
    ----------
    raw : collection of str
        Shell patterns.
    names : collection of str
        Names of all tensors.

    Raises
    ------
    ConfigError
        A pattern fits no name.
    """
    for pattern in raw:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"raw: expected patterns that fit a tensor, got {pattern!r}, which fits none")


def store_exactly(name: str) -> Remedy:
    """Return the remedy for a tensor that cannot be quantized.

    >>> str(store_exactly("layer[0].weight"))
    "store it exactly with raw=['layer[[]0].weight']"
    """
    return Remedy("store it exactly with {raw}", {"raw": repr([glob.escape(name)])})
