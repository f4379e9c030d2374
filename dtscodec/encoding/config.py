"""Settings of the encoder."""

import glob
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Literal, TypeAlias, get_args

from typing_extensions import assert_never

from dtscodec.encoding.presets.recipe import BEST, LEAST_ERROR, Recipe
from dtscodec.encoding.targets import MaxError, Rank, RankShare, Size, Target
from dtscodec.errors import ConfigError, Remedy

LevelScope = Literal["matrix", "vector"]

PAPER_HEADS = ("classifier*", "score*")
"""Patterns of the tensors that the authors of DTS store exactly."""

PAPER_RANK = RankShare(0.1)
"""Default of the preset `paper`, as published."""

DEFAULT_SIZE = Size(Fraction(8, 100), "bpp")
"""Default of the preset `best`: 0.25 % of a checkpoint in float32, 0.5 % of one in bfloat16."""

DISTILLED = "distilled"
"""Word in the summary's `encoder` of packs that were fitted to calibration samples."""

DAMPING = 0.1
"""Default for Gram matrices of some hundred texts; see `Gram.damped`."""

SMALLEST_SIDE = 8
"""Matrices with a side shorter than this are quantized element by element by `best`."""


@dataclass(frozen=True, slots=True)
class Best:
    """The preset `best`: shares one budget of bytes among all tensors, and fits what it writes to the delta.

    Parameters
    ----------
    recipe : Recipe, optional
        Its ingredients, for experiments; the default depends on the target.
    grams : str, optional
        Path of a file of Gram matrices (`dtscodec.activations.gram_file`). Errors of layers that it covers are then
        measured in layer outputs, not in weights.
    damping : float
        Weight of the plain norm of weights beside `grams`: 0 for outputs alone, above 1 for hardly more than weights.
    will_be_fitted : bool
        Whether the pack will be fitted to calibration samples. Biases and norms are then always stored, since only
        what a pack stores can be fitted, and the summary says that the pack is fitted.

    Raises
    ------
    ConfigError
        The damping is out of range.
    """

    recipe: Recipe | None = None
    grams: str | None = None
    damping: float = DAMPING
    will_be_fitted: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.damping < math.inf:
            raise ConfigError(f"expected a damping of at least 0, got {self.damping}")


@dataclass(frozen=True, slots=True)
class Paper:
    """The preset `paper`: DTS as published (arXiv 2512.01461).

    Parameters
    ----------
    levels : {"matrix", "vector"}
        Whether a level table belongs to a factor matrix, as in the authors' code, or to a singular vector, as in the
        paper's text.

    Raises
    ------
    ConfigError
        There are no such levels.
    """

    levels: LevelScope = "matrix"

    def __post_init__(self) -> None:
        if self.levels not in get_args(LevelScope):
            raise ConfigError(f"expected levels per {' or '.join(get_args(LevelScope))}, got {self.levels!r}")


Preset: TypeAlias = Best | Paper


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """Settings of the encoder.

    Parameters
    ----------
    target : Size, Rank, RankShare or MaxError, optional
        What to aim at. By default, `best` makes packs of 0.08 bits per parameter, or larger where deltas of low rank
        and new tensors need more; `paper` takes a tenth of the full rank. `paper` has no sizes or errors.
    preset : Best or Paper
        The encoder, with the settings that it alone has.
    raw : tuple of str
        Shell patterns of names of tensors that are stored exactly; `paper` adds the heads that its authors store so.
    renames : tuple of (str, str)
        Beginnings of the fine-tune's names, each with what replaces it in the base.
    files : bool
        Whether configuration and tokenizer files travel in the pack.
    device : str
        Device for products of large matrices in `best`, such as ``"cuda"``.

    Raises
    ------
    ConfigError
        A value is out of range, or target and preset exclude each other.

    Examples
    --------
    >>> EncodeConfig(MaxError(0.3)).describe(), EncodeConfig(Rank(16), Paper()).describe()
    ('preset=best error=0.3', 'preset=paper rank=16')
    """

    target: Target | None = None
    preset: Preset = Best()  # A frozen value.
    raw: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    files: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if isinstance(self.raw, str):
            raise ConfigError(f"expected a tuple of patterns, got the string {self.raw!r}")
        if self.target is not None and not isinstance(self.target, Target):
            raise ConfigError(f"expected a target such as dtscodec.Size.parse('2MB'), got {self.target!r}")
        if not isinstance(self.preset, Preset):
            raise ConfigError(f"expected a preset, dtscodec.Best() or dtscodec.Paper(), got {self.preset!r}")
        if isinstance(self.preset, Paper) and not isinstance(self.target, Rank | RankShare | None):
            raise ConfigError(f"expected a rank for the preset paper, got the target {self.target}")

    @property
    def uniform_rank(self) -> Rank | RankShare | None:
        """The rank that all matrices have; None if the encoder chooses one for each."""
        match self.target:
            case Rank() | RankShare():
                return self.target
            case Size() | MaxError() | None:
                return PAPER_RANK if isinstance(self.preset, Paper) else None
            case _:
                assert_never(self.target)

    @property
    def recipe(self) -> Recipe:
        """The recipe in force; of no account for the preset `paper`."""
        given = self.preset.recipe if isinstance(self.preset, Best) else None
        return given or (LEAST_ERROR if isinstance(self.target, MaxError) else BEST)

    def stores_exactly(self, name: str) -> bool:
        """Return whether a pattern says to store this tensor exactly."""
        return is_exact(name, self.raw + (PAPER_HEADS if isinstance(self.preset, Paper) else ()))

    @property
    def quantizes_new_tensors(self) -> bool:
        """Whether tensors without a counterpart in the base may be quantized; else they are stored exactly."""
        return isinstance(self.preset, Best)

    def is_factorized(self, shape: tuple[int, int], dimensions: int) -> bool:
        """Return whether a tensor is stored by its singular vectors, not element by element.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the tensor as a matrix; a convolution has a row for each output channel.
        dimensions : int
            Number of dimensions of the tensor itself.
        """
        return dimensions == 2 if isinstance(self.preset, Paper) else min(shape) >= SMALLEST_SIDE

    def for_fitting(self) -> "EncodeConfig":
        """Return the settings for a pack that will be fitted to calibration samples afterwards."""
        match self.preset:
            case Best():
                return replace(self, preset=replace(self.preset, will_be_fitted=True))
            case Paper():  # It stores all that changed in any case.
                return self
            case _:
                assert_never(self.preset)

    def describe(self) -> str:
        """Return a short text for the summary of the pack.

        A size is not mentioned: the file has it, and a longer text would change it.
        """
        match self.preset:
            case Paper(levels=levels):
                words = ["preset=paper", f"rank={self.uniform_rank}", "levels=vector" if levels == "vector" else ""]
            case Best(grams=grams, damping=damping, will_be_fitted=will_be_fitted):
                words = [
                    "preset=best",
                    self._describe_target(),
                    "" if grams is None else f"esd={damping}",
                    DISTILLED if will_be_fitted else "",
                ]
            case _:
                assert_never(self.preset)
        return " ".join(filter(None, words))

    def _describe_target(self) -> str:
        match self.target:
            case Rank() | RankShare():
                return f"rank={self.target}"
            case MaxError():
                return f"error={self.target}"
            case Size() | None:
                return ""
            case _:
                assert_never(self.target)


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
