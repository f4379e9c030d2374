"""Settings of the encoder."""

import glob
from collections.abc import Collection
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Final, Literal, TypeAlias, get_args

from dtscodec.encoding.presets.recipe import BEST, LEAST_ERROR, Recipe
from dtscodec.encoding.targets import MaxError, Rank, RankShare, Size, Target
from dtscodec.errors import ConfigError, Remedy, assert_never

LevelScope = Literal["matrix", "vector"]

PAPER_HEADS = ("classifier*", "score*")
"""Patterns of the tensors that the authors of DTS store exactly."""

PAPER_RANK = RankShare(0.1)
"""Default of the preset `paper`, as published."""

DEFAULT_SIZE = Size(Fraction(8, 100), "bpp")
"""Default of the preset `best`: 0.25 % of a checkpoint in float32, 0.5 % of one in bfloat16."""

DISTILLED = "distilled"
"""Word that ends the summary's `encoder` text of packs that were fitted to calibration samples."""

SMALLEST_SIDE = 8
"""Shortest side of the matrices that `best` factorizes; smaller ones are quantized element by element."""


@dataclass(frozen=True, slots=True)
class Best:
    """The preset `best`: shares one budget of bytes among all tensors, and fits codes and scales to the delta.

    Parameters
    ----------
    recipe : dtscodec.encoding.presets.recipe.Recipe, optional
        The ingredients of the preset, for experiments: `Recipe` is not part of the public interface and may change.
        The default depends on the target.
    """

    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Paper:
    """The preset `paper`: DTS as published (arXiv 2512.01461).

    Parameters
    ----------
    levels : {"matrix", "vector"}
        Scope of a code book: a factor matrix, as in the authors' code, or a singular vector, as in the paper's text.

    Raises
    ------
    ConfigError
        `levels` is neither.
    """

    levels: LevelScope = "matrix"

    def __post_init__(self) -> None:
        if self.levels not in get_args(LevelScope):
            raise ConfigError(f"expected levels per {' or '.join(get_args(LevelScope))}, got {self.levels!r}")


@dataclass(frozen=True, slots=True)
class BaseOnly:
    """No deltas: tensors that the base has are left at its values. Packs with a residual layer restore them from it."""


Preset: TypeAlias = Best | Paper | BaseOnly


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """Settings of the encoder.

    Parameters
    ----------
    target : Size, Rank, RankShare or MaxError, optional
        The aim of the encode. By default, `best` makes packs of 0.08 bits per parameter, or larger where deltas of low
        rank and new tensors need more, and `paper` takes a tenth of the full rank. `paper` supports ranks only.
    preset : Best, Paper or BaseOnly
        The encoder, with the settings that only this encoder has.
    raw : tuple of str
        Shell patterns of names of tensors that are stored exactly. `paper` adds `PAPER_HEADS`.
    renames : tuple of (str, str)
        Prefixes of the fine-tune's tensor names, each with the prefix that replaces it in the base.
    files : bool
        Whether configuration and tokenizer files travel in the pack.
    device : str
        Device for products of large matrices in `best`, such as ``"cuda"``.
    dequantize_base : bool
        Whether a quantized base is read dequantized, for fine-tunes in 16 or 32 bits (spec section 7.1).
    exact : bool
        Whether a residual layer makes the pack decode to the fine-tune bit for bit. Without a target, the size of the
        codes is then the one that makes the whole pack smallest.
    will_be_fitted : bool
        Whether the pack will be fitted to calibration samples (`dtscodec.fit`). `best` then always stores biases and
        norms, since only stored numbers can be fitted. The summary names the pack as fitted.

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
    preset: Preset = Best()  # A default that is shared is safe, because it is frozen.
    raw: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    files: bool = True
    device: str = "cpu"
    dequantize_base: bool = False
    exact: bool = False
    will_be_fitted: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.raw, str):
            raise ConfigError(f"expected a tuple of patterns, got the string {self.raw!r}")
        if self.target is not None and not isinstance(self.target, Target):
            raise ConfigError(f"expected a target such as dtscodec.Size.parse('2MB'), got {self.target!r}")
        if not isinstance(self.preset, Preset):
            raise ConfigError(
                f"expected a preset, dtscodec.Best(), dtscodec.Paper() or dtscodec.BaseOnly(), got {self.preset!r}"
            )
        if isinstance(self.preset, Paper) and not isinstance(self.target, Rank | RankShare | None):
            raise ConfigError(f"expected a rank for the preset paper, got the target {self.target}")
        if isinstance(self.preset, BaseOnly) and self.target is not None:
            raise ConfigError(f"expected no target for packs without deltas, got {self.target}")

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
        """The recipe of `best`: the one that is given, or the default for the target. `paper` does not use it."""
        given = self.preset.recipe if isinstance(self.preset, Best) else None
        return given or (LEAST_ERROR if isinstance(self.target, MaxError) else BEST)

    def stores_exactly(self, name: str) -> bool:
        """Return whether a pattern names this tensor as one to store exactly.

        `dtscodec.encoding.segments.exact_rows` lists all reasons for exact tensors.
        """
        return is_exact(name, self.raw + (PAPER_HEADS if isinstance(self.preset, Paper) else ()))

    @property
    def passes(self) -> int:
        """Number of passes over all tensors that the codes take."""
        return 2 if self.is_surveyed else 1

    @property
    def is_surveyed(self) -> bool:
        """Whether all tensors are surveyed before any is encoded, to share a budget among them."""
        return isinstance(self.preset, Best)

    @property
    def quantizes_new_tensors(self) -> bool:
        """True if tensors without a counterpart in the base may be quantized; else they are stored exactly."""
        return isinstance(self.preset, Best) and self.uniform_rank is None

    def is_factorized(self, shape: tuple[int, int], dimensions: int) -> bool:
        """Return whether a tensor is stored by its singular vectors, not element by element.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the tensor as a matrix; a convolution has a row for each output channel.
        dimensions : int
            Number of dimensions of the tensor itself.
        """
        # `paper` factorizes 2-d tensors only; `best` also convolutions, as matrices.
        return dimensions == 2 if isinstance(self.preset, Paper) else min(shape) >= SMALLEST_SIDE

    def without_residual(self) -> "EncodeConfig":
        """Return the same settings for the front of an exact pack."""
        return replace(self, exact=False)

    def for_fitting(self) -> "EncodeConfig":
        """Return the same settings for a pack that will be fitted to calibration samples."""
        return replace(self, will_be_fitted=True)

    def describe(self) -> str:
        """Return the short text about these settings in the summary of the pack.

        A target size is left out: the text is part of the pack, and would change the size that it names.
        """
        match self.preset:
            case Paper(levels=levels):
                words = ["preset=paper", f"rank={self.uniform_rank}", "levels=vector" if levels == "vector" else ""]
            case Best():
                words = ["preset=best", self._describe_target()]
            case BaseOnly():
                words = ["preset=none"]
            case _:
                assert_never(self.preset)
        return " ".join(filter(None, [*words, DISTILLED if self.will_be_fitted else ""]))

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


EXACT: Final = EncodeConfig(preset=BaseOnly(), exact=True)
"""The fastest exact packs: without codes, which would take a singular value decomposition."""


def is_exact(name: str, patterns: Collection[str]) -> bool:
    """Return whether the name of a tensor matches one of some shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(raw: Collection[str], names: Collection[str]) -> None:
    """Check that each pattern matches a tensor: one that matches none is likely misspelled.

    Parameters
    ----------
    raw : collection of str
        Shell patterns.
    names : collection of str
        Names of all tensors.

    Raises
    ------
    ConfigError
        A pattern matches no name.
    """
    for pattern in raw:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"raw: expected patterns that fit a tensor, got {pattern!r}, which fits none")


def store_exactly(name: str) -> Remedy:
    """Return the remedy for a tensor that cannot be quantized: its name as a pattern for `raw`.

    >>> str(store_exactly("layer[0].weight"))
    "store it exactly with raw=['layer[[]0].weight']"
    """
    return Remedy("store it exactly with {raw}", {"raw": repr([glob.escape(name)])})
