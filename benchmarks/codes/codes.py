"""Codes for singular vectors: those of the format, and others whose bits are counted."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.codes.trellis import Trellis
from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.lloyd_max import nearest
from dtscodec.quantize.scalar import SCALE_ROUNDS, TINY, FittedVector, fit_scale, quantize_vector
from dtscodec.quantize.widths import Bits, width_of

SAMPLE = torch.special.ndtri((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000).float()
"""Quantiles of the normal distribution: a sample without noise."""
SCALE_BYTES = 2


@dataclass(frozen=True, eq=False)
class Code(ABC):
    """A way to store a vector as codes and a scale.

    Parameters
    ----------
    name : str
        Its name in tables.
    bits : float
        Bits of an element.
    distortion : float
        Expected squared error of a normal variable of unit variance.
    overhead : float
        Bytes of a component beside those of its elements.
    """

    name: str
    bits: float
    distortion: float
    overhead: float = SCALE_BYTES

    @property
    def retained(self) -> float:
        """Share of a component's energy that remains after both of its vectors are quantized."""
        return (1 - self.distortion) ** 2

    def cost(self, rows: int, columns: int) -> float:
        """Return the bytes of a component, as expected before it is quantized."""
        return sum(math.ceil(side * self.bits / 8) for side in (rows, columns)) + self.overhead

    def fitted_to(self, vectors: Tensor) -> "Code":
        """Return the code with the levels that all vectors of a factor share; itself if its levels are fixed."""
        return self

    @abstractmethod
    def quantize(self, vector: Tensor) -> FittedVector:
        """Quantize a vector: float32 [n]. `codes` of the result are the values without the scale."""

    def size(self, fitted: FittedVector) -> float:
        """Return the bytes of a quantized vector without its scale."""
        return math.ceil(len(fitted.codes) * self.bits / 8)


def unit_scale(vector: Tensor) -> float:
    """Return the root mean square of a vector, at least `TINY`."""
    return max(float(vector.square().mean().sqrt()), TINY)


@dataclass(frozen=True, eq=False)
class FormatCode(Code):
    """A width of the format above two bits."""

    width: Bits = 4

    @classmethod
    def of(cls, bits: Bits) -> "FormatCode":
        """Return the code of a width."""
        width = width_of(bits)
        overhead = SCALE_BYTES if width.has_scales else 0
        return cls(f"{bits} bits", bits, 1 - width.retained_energy**0.5, overhead, bits)

    def quantize(self, vector: Tensor) -> FittedVector:
        """See `Code`."""
        levels = width_of(self.width).fixed_levels
        book = None if levels is None else torch.from_numpy(levels)
        fitted = quantize_vector(vector, self.width, book)
        return replace(fitted, codes=fitted.codes if book is None else book[fitted.codes])


@dataclass(frozen=True, eq=False)
class LevelCode(Code):
    """A few levels, of which each element takes the nearest."""

    levels: Tensor = field(default_factory=lambda: torch.empty(0))

    def quantize(self, vector: Tensor) -> FittedVector:
        """See `Code`."""
        scale = unit_scale(vector)
        for _ in range(SCALE_ROUNDS):
            values = self.levels[nearest(vector / scale, self.levels)]
            scale = max(abs(fit_scale(vector, values, values).scale), TINY)
        values = self.levels[nearest(vector / scale, self.levels)]
        return fit_scale(vector, values, values)


@dataclass(frozen=True, eq=False)
class FourGroups(LevelCode):
    """The two bits of the preset `best`: levels are the root mean squares of the four groups."""

    def fitted_to(self, vectors: Tensor) -> "FourGroups":
        """See `Code`."""
        unit = vectors / vectors.square().mean(1, keepdim=True).sqrt().clamp(min=TINY)
        return replace(self, levels=four_groups(unit.reshape(1, -1))[1][0])


@dataclass(frozen=True, eq=False)
class TrellisCode(Code):
    """Trellis-coded quantization."""

    trellis: Trellis | None = None

    @classmethod
    def of(cls, memory: int, bits: int, group: int = 1) -> "TrellisCode":
        """Return the code of a trellis; see `Trellis`."""
        trellis = Trellis.for_normal(memory, bits, group)
        vectors = torch.randn(40, 576, generator=torch.Generator().manual_seed(2))
        found = torch.stack([torch.from_numpy(trellis.values(trellis.search(vector.numpy()))) for vector in vectors])
        name = f"trellis, {1 << memory:,} states, {bits / group:g}"
        return cls(name, bits / group, float((vectors - found).square().mean()), trellis=trellis)

    def quantize(self, vector: Tensor) -> FittedVector:
        """See `Code`."""
        assert self.trellis is not None
        padded = torch.nn.functional.pad(vector / unit_scale(vector), (0, -len(vector) % self.trellis.table.shape[1]))
        found = torch.from_numpy(self.trellis.values(self.trellis.search(padded.numpy())))[: len(vector)]
        return fit_scale(vector, found, found)


@dataclass(frozen=True, eq=False)
class ByteCode(Code):
    """Vector quantization: a byte is one of 256 code words of several elements."""

    words: Tensor = field(default_factory=lambda: torch.empty(256, 0))

    @classmethod
    def of(cls, size: int) -> "ByteCode":
        """Return the code of words of `size` elements, fitted to normal vectors (Linde, Buzo and Gray, 1980)."""
        random = torch.Generator().manual_seed(0)
        sample = torch.randn(40_000, size, generator=random)
        words = 0.8 * sample[:256]
        for round_ in range(44):
            if round_ >= 40:  # New samples at the end, so that the words are not fitted to one.
                sample = torch.randn(60_000, size, generator=random)
            nearest_word = _nearest_word(sample, words)
            counts = torch.bincount(nearest_word, minlength=256)[:, None]
            means = torch.zeros_like(words).index_add_(0, nearest_word, sample) / counts.clamp(min=1)
            words = torch.where(counts > 0, means, words)
        fresh = torch.randn(40_000, size, generator=random)
        distortion = float((fresh - words[_nearest_word(fresh, words)]).square().mean())
        return cls(f"vectors of {size} in a byte", 8 / size, distortion, words=words)

    def quantize(self, vector: Tensor) -> FittedVector:
        """See `Code`."""
        scale, size = unit_scale(vector), self.words.shape[1]
        parts = torch.nn.functional.pad(vector, (0, -len(vector) % size)).reshape(-1, size)
        for _ in range(SCALE_ROUNDS):
            values = self.words[_nearest_word(parts / scale, self.words)].reshape(-1)[: len(vector)]
            fitted = fit_scale(vector, values, values)
            scale = max(abs(fitted.scale), TINY)
        return fitted


def _nearest_word(parts: Tensor, words: Tensor) -> Tensor:
    return (parts @ words.T - words.square().sum(1) / 2).argmax(1)


@dataclass(frozen=True, eq=False)
class EntropyCode(Code):
    """Entropy-coded levels with a dead zone: an element takes the level of least squared error plus weighted bits.

    Bits are those of an ideal range coder with fixed probabilities for a normal variable. A component pays for the
    coder's last state and for its own length, so that it can be read alone.

    Parameters
    ----------
    levels : float32 [k]
        The levels.
    lengths : float32 [k]
        Bits of each.
    weight : float
        Squared error that a bit is worth.
    """

    levels: Tensor = field(default_factory=lambda: torch.empty(0))
    lengths: Tensor = field(default_factory=lambda: torch.empty(0))
    weight: float = 0.0

    @classmethod
    def of(cls, step: float, weight: float, half: int = 5) -> "EntropyCode":
        """Return the code whose 2 `half` + 1 levels are at first `step` apart, fitted to a normal variable."""
        levels, lengths = (
            torch.arange(-half, half + 1).float() * step,
            torch.full((2 * half + 1,), math.log2(2 * half + 1)),
        )
        for _ in range(30):
            found = _cheapest(SAMPLE, levels, lengths, weight)
            counts = torch.bincount(found, minlength=len(levels)).float() + 0.05
            lengths = -(counts / counts.sum()).log2()
            means = torch.zeros_like(levels).index_add_(0, found, SAMPLE) / counts
            levels = torch.where(counts > 3, means, levels)
        found = _cheapest(SAMPLE, levels, lengths, weight)
        bits, distortion = float(lengths[found].mean()), float((SAMPLE - levels[found]).square().mean())
        name = f"entropy-coded, {bits:.1f}"
        return cls(name, bits, distortion, SCALE_BYTES + 4, levels, lengths, weight)

    def quantize(self, vector: Tensor) -> FittedVector:
        """See `Code`."""
        values = self.levels[_cheapest(vector / unit_scale(vector), self.levels, self.lengths, self.weight)]
        return fit_scale(vector, values, values)

    def size(self, fitted: FittedVector) -> float:
        """See `Code`."""
        return float(self.lengths[nearest(fitted.codes, self.levels)].sum()) / 8


def _cheapest(values: Tensor, levels: Tensor, lengths: Tensor, weight: float) -> Tensor:
    return ((values[:, None] - levels).square() + weight * lengths).argmin(1)
