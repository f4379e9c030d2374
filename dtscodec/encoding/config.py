"""What an encoder is asked to do."""

import glob
import math
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from numbers import Integral
from typing import Literal, get_args

from dtscodec.encoding.presets.recipe import BEST, LEAST_ERROR, Recipe
from dtscodec.encoding.size import Size
from dtscodec.errors import ConfigError

Preset = Literal["best", "paper"]
LevelScope = Literal["matrix", "vector"]

PAPER_HEADS = ("classifier*", "score*")
"""Tensors that the authors of DTS keep exactly."""

PAPER_RANK = 0.1
DEFAULT_SIZE = Size(Fraction(8, 100), "bpp")
"""0.25 % of a checkpoint in float32, 0.5 % of one in bfloat16."""

DISTILLED = "distilled"
"""What a pack says of its encoder if its numbers were fitted to behaviour."""

STEPS = 100
"""Of that fit, by default."""

DAMPING = 0.1
"""Of some hundred texts; see `Gram.damped`."""

SMALLEST_SIDE = 8
"""`best` codes what has a side shorter than this element by element."""


def keep_exact(name: str) -> str:
    """The way out for a tensor that cannot be coded.

    >>> keep_exact("layer[0].weight")
    "keep it exact with --raw 'layer[[]0].weight'"
    """
    return f"keep it exact with --raw {shlex.quote(glob.escape(name))}"


def check_patterns(raw: Collection[str], names: Collection[str]) -> None:
    """Raise ConfigError if a pattern of `raw` fits none of these names: a letter may be wrong."""
    for pattern in raw:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"raw: expected patterns that fit a tensor, got {pattern!r}, which fits none")


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """Settings of the encoder. Of `size`, `rank` and `error` at most one is given.

    Parameters
    ----------
    preset : {"best", "paper"}
        `best` shares a budget of bytes among all tensors and fits what it writes to the delta; `paper` is DTS as
        published.
    size : Size, optional
        Largest pack file; for `best` only. By default 0.08 bits for each parameter, or what must be in the pack if
        that is more.
    rank : float or int, optional
        The same for every matrix: a fraction is a share of min(m, n), cut off as the authors of DTS do; an integer is
        a rank. A matrix that changed gets at least one component. By default 0.1 for `paper`.
    error : float, optional
        The smallest pack whose decoded delta differs by at most this from the true one: relative Frobenius error over
        all tensors that have a counterpart, without what rounding alone explains. For `best` only. Nothing is scaled
        up to the norm of the true delta then.
    raw : tuple of str
        Patterns (as of a shell) of names that are stored exactly; `paper` adds the heads that its authors keep.
    levels : {"matrix", "vector"}
        For `paper`: one level table per factor matrix, as the authors' code has it, or one per singular vector, as the
        paper's text has it.
    renames : tuple of (str, str)
        Beginnings of names of the fine-tune, and what stands for them in the base.
    files : bool
        Whether configuration and tokenizer files travel in the pack.
    recipe : Recipe, optional
        What `best` is made of; for experiments.
    device : str
        What multiplies large matrices for `best`, such as ``"cuda"``.
    calibration : str, optional
        A file of Gram matrices (`dtscodec.activations.gram_file`), for `best`: what layers put out is kept then, not
        their weights; of layers that it knows nothing of, their weights.
    damping : float
        How far weights count as well: 0 for outputs alone, above 1 for hardly more than weights.
    distilled : bool
        Whether levels and scales will be fitted to behaviour (`dtscodec.calibration.fit`); the pack says so.

    Raises
    ------
    ConfigError
        A value out of range, or values that exclude each other.
    """

    preset: Preset = "best"
    size: Size | None = None
    rank: float | int | None = None
    error: float | None = None
    raw: tuple[str, ...] = ()
    levels: LevelScope = "matrix"
    renames: tuple[tuple[str, str], ...] = field(default=())
    files: bool = True
    recipe: Recipe | None = None
    device: str = "cpu"
    calibration: str | None = None
    damping: float = DAMPING
    distilled: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.raw, str):
            raise ConfigError(f"expected a tuple of patterns, got the string {self.raw!r}")
        if self.size is not None and not isinstance(self.size, Size):
            raise ConfigError(f"expected a size such as dtscodec.Size.parse('2MB'), got {self.size!r}")
        for value, allowed, what in (
            (self.preset, get_args(Preset), "a preset"),
            (self.levels, get_args(LevelScope), "levels per"),
        ):
            if value not in allowed:
                raise ConfigError(f"expected {what} {' or '.join(allowed)}, got {value!r}")
        self._check_target()

    def _check_target(self) -> None:
        if sum(target is not None for target in (self.size, self.rank, self.error)) > 1:
            raise ConfigError("expected one of size, rank and error, got several")
        if self.preset == "paper" and any(given is not None for given in (self.size, self.error, self.recipe)):
            raise ConfigError("expected a rank for the preset paper, got a size, an error or a recipe")
        if self.preset == "paper" and self.calibration is not None:
            raise ConfigError("expected no calibration for the preset paper, got one")
        if not 0 <= self.damping < math.inf:
            raise ConfigError(f"expected a damping of at least 0, got {self.damping}")
        if self.preset == "best" and self.levels != "matrix":
            raise ConfigError("expected levels per matrix for the preset best, got levels per vector")
        if self.rank is not None:
            whole = isinstance(self.rank, Integral)
            if isinstance(self.rank, bool) or not (self.rank >= 1 if whole else 0 < self.rank <= 1):
                raise ConfigError(f"expected a rank of at least 1, or a share between 0 and 1, got {self.rank}")
        if self.error is not None and not 0 < self.error < 1:
            raise ConfigError(f"expected an error between 0 and 1, got {self.error}")

    def rank_of(self, rows: int, columns: int) -> int:
        """Components for a matrix of that size, where a rank is given.

        >>> EncodeConfig(rank=0.29).rank_of(100, 200), EncodeConfig(rank=8).rank_of(4, 200)
        (28, 4)
        """
        rank = PAPER_RANK if self.rank is None else self.rank
        short = min(rows, columns)
        wanted = int(rank) if isinstance(rank, Integral) else int(rank * short)
        return max(1, min(wanted, short))

    def keeps_exact(self, name: str) -> bool:
        """Whether a tensor is to be stored exactly."""
        patterns = self.raw + (PAPER_HEADS if self.preset == "paper" else ())
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    @property
    def codes_new(self) -> bool:
        """Whether tensors without a counterpart in the base may be coded."""
        return self.preset == "best"

    def codes_as_matrix(self, shape: tuple[int, int], dimensions: int) -> bool:
        """Whether a tensor is coded by its singular vectors, not element by element.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns; those of a convolution are its outputs and all the rest.
        dimensions : int
            Of the tensor.
        """
        if self.preset == "paper":
            return dimensions == 2
        return min(shape) >= SMALLEST_SIDE

    @property
    def effective_recipe(self) -> Recipe:
        """The recipe in force."""
        return self.recipe or (BEST if self.error is None else LEAST_ERROR)

    def describe(self) -> str:
        """A short text for the pack's summary."""
        if self.preset == "paper":
            rank = PAPER_RANK if self.rank is None else self.rank
            parts = ["preset=paper", f"rank={rank}", self.levels == "vector" and "levels=vector"]
        else:  # Not the size: it is the file's, and a text that went with it would change it.
            damping = self.damping if self.calibration is not None else None
            targets = {"rank": self.rank, "error": self.error, "esd": damping}
            parts = ["preset=best", *(value is not None and f"{name}={value}" for name, value in targets.items())]
        return " ".join(part for part in [*parts, self.distilled and DISTILLED] if part)
