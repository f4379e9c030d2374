"""What an encoder is asked to do."""

import glob
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Literal, get_args

LevelScope = Literal["matrix", "vector"]

PAPER_HEADS = ("classifier*", "score*")
"""Tensors that the authors of DTS keep exactly."""


def keep_exact(name: str) -> str:
    """The way out for a tensor that cannot be coded.

    >>> keep_exact("layer[0].weight")
    "keep it exact with --raw 'layer[[]0].weight'"
    """
    return f"keep it exact with --raw {shlex.quote(glob.escape(name))}"


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """Settings of the encoder; the defaults are DTS as published (``--preset paper``).

    Parameters
    ----------
    rank : float or int
        A fraction is a share of min(m, n) of each matrix, cut off as the authors do; an integer is a rank. A matrix
        that changed gets at least one component.
    raw : tuple of str
        Patterns (as of a shell) of names that are stored exactly; by default the heads that the authors keep. The
        command line adds to these, a tuple given here replaces them.
    levels : {"matrix", "vector"}
        One level table per factor matrix, as the authors' code has it, or one per singular vector, as the paper's text
        has it.
    renames : tuple of (str, str)
        Beginnings of names of the fine-tune, and what stands for them in the base.
    files : bool
        Whether configuration and tokenizer files travel in the pack.

    Raises
    ------
    ValueError
        A value out of range.
    """

    rank: float | int = 0.1
    raw: tuple[str, ...] = PAPER_HEADS
    levels: LevelScope = "matrix"
    renames: tuple[tuple[str, str], ...] = field(default=())
    files: bool = True

    def __post_init__(self) -> None:
        whole = isinstance(self.rank, Integral)
        if isinstance(self.raw, str):
            raise ValueError(f"expected a tuple of patterns, got the string {self.raw!r}")
        if isinstance(self.rank, bool) or not (self.rank >= 1 if whole else 0 < self.rank <= 1):
            raise ValueError(f"expected a rank of at least 1, or a share between 0 and 1, got {self.rank}")
        if self.levels not in get_args(LevelScope):
            raise ValueError(f"expected levels per matrix or vector, got {self.levels!r}")

    def rank_of(self, rows: int, columns: int) -> int:
        """Components for a matrix of that size.

        >>> EncodeConfig(rank=0.29).rank_of(100, 200), EncodeConfig(rank=8).rank_of(4, 200)
        (28, 4)
        """
        short = min(rows, columns)
        wanted = int(self.rank) if isinstance(self.rank, Integral) else int(self.rank * short)
        return max(1, min(wanted, short))

    def keeps_exact(self, name: str) -> bool:
        """Whether a tensor is to be stored exactly."""
        return any(fnmatchcase(name, pattern) for pattern in self.raw)

    def describe(self) -> str:
        """A short text for the pack's summary."""
        levels = "" if self.levels == "matrix" else f" levels={self.levels}"
        return f"preset=paper rank={self.rank}{levels}"
