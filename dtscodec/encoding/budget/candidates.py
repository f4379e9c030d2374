"""The ways in which `best` may store a piece, and what each costs and is worth: what `allocate` chooses from.

Worth is squared norm of the delta that a choice removes, as the recipe counts it; cost is bytes of the pack. Nothing
here codes anything: costs follow from shapes, worth from singular values and sums of squares.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.segment import CodedBlock, Delta, New, raw_block
from dtscodec.encoding.targets import Rank, RankShare
from dtscodec.format.blocks import MAX_COMPONENTS, Band, BaseRows, Block, Coded, LowRank, Raw, Same, Values
from dtscodec.format.streams import NUMBER_DTYPES
from dtscodec.linalg.norms import squared_norm
from dtscodec.linalg.rounding_noise import signal_energies
from dtscodec.linalg.spectrum import singular_values
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import ALL_BITS, Bits, width_of

Floats: TypeAlias = NDArray[np.float64]

NUMBERS = "BF16"
"""How norms, levels and scales are stored: fine enough, since scales are fitted after levels are rounded."""
NUMBER = NUMBER_DTYPES[NUMBERS]

ALWAYS_EXACT = 64
"""Bytes up to which a tensor is not worth a thought: it is stored exactly."""
TALL = 4
"""A matrix so many times as high as wide may have most of its rows left out."""
ROW_SHARES = (1, 1 / 4, 1 / 16, 1 / 64)
LOW = 1 / 4
"""Share of a matrix's smaller side up to which a rank is low."""
UNSEEN = 0.01
"""Share of a delta's energy that may lie under the rounding noise where its rank is counted."""
NEW_MATRIX_SIDE = 64
"""New matrices with sides of at least so many may be coded by singular vectors, if nothing better can be paid for."""
ELEMENTS_WORTH = 100
"""What the energy of biases and norms counts, by that of matrices, where elements will be fitted to behaviour: they are
few, and one that is left as the base has it cannot be."""
AMPLE = 2
"""How many times the components of an even share in the budget are looked at: strong matrices get more than that."""
LEAST_KNOWN = 160
"""Singular values that are looked at in any case: adapters have ranks up to 128."""
HALF_VALUES = (2.0**-17, 2.0**15)
"""Root mean square and largest magnitude of values that float16 holds well enough."""
HALF_FACTORS = (2.0**-34, 2.0**8)
"""Root mean squares of matrices whose factors it holds: those have about the root of it, and peaks."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to store a piece.

    Parameters
    ----------
    block : Block
    cost : int
        Bytes of its streams; bitmaps as they are before compression.
    worth : float
        Squared norm that it removes, as the recipe counts it.
    removed : float
        Squared norm that it removes, as far as it can be told before coding.
    bitmaps : bytes
    """

    block: Block
    cost: int
    worth: float
    removed: float
    bitmaps: bytes = b""


def coded_bytes(block: Coded, columns: int, bitmaps: bytes) -> int:
    """Bytes of a coded block's streams, bitmaps as they are before compression."""
    return sum(block.band_bytes(columns)) + NUMBER * block.number_count(columns) + len(bitmaps)


@dataclass(frozen=True, slots=True)
class Demand:
    """How much of a spectrum a choice may depend on; what is beyond is estimated, where that saves time.

    Parameters
    ----------
    density : float
        Bytes of the pack for each parameter; 0 if no size is asked for.
    share : float
        Share of the energy that singular values must be known of.
    """

    density: float
    share: float

    def of(self, shape: Sequence[int]) -> tuple[int, float]:
        """Singular values of a matrix that must be known at the least, and the share of its energy."""
        component = sum(vector_bytes(side, 2) for side in shape) + NUMBER
        even = self.density * math.prod(shape) / component
        return max(LEAST_KNOWN, int(AMPLE * even)), self.share


class Options(Protocol):
    """All ways to store one piece."""

    @property
    def energy(self) -> float:
        """Squared norm of the delta, without rounding noise; 0 for what has no counterpart in the base."""

    def best(self, price: float) -> Choice:
        """The choice of the largest worth minus price times cost."""

    @property
    def wanted(self) -> Choice | None:
        """The choice that a default size makes room for: all of a delta of low rank, new tensors in 8 bits."""

    def better(self, choice: Choice) -> Iterator[Choice]:
        """Choices that a few bytes more would buy."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Options that can be listed, costs ascending; at least one."""

    choices: tuple[Choice, ...]
    energy: float

    def best(self, price: float) -> Choice:
        """See `Options`."""
        return max(self.choices, key=lambda choice: choice.worth - price * choice.cost)

    @property
    def wanted(self) -> None:
        """See `Options`."""

    def better(self, choice: Choice) -> Iterator[Choice]:
        """See `Options`."""
        return (other for other in self.choices if other.cost > choice.cost and other.worth > choice.worth)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A matrix, or some of its rows, as components to choose from.

    Parameters
    ----------
    subset : (height, base, rows, columns)
        As blocks have them.
    shape : (int, int)
        Coded rows and columns.
    energies : float64 [k]
        Squared singular values above the noise, descending.
    bitmaps : bytes
    recipe : Recipe
    """

    subset: tuple[int, BaseRows | None, int | None, int | None]
    shape: tuple[int, int]
    energies: Floats
    bitmaps: bytes
    recipe: Recipe

    @classmethod
    def of(cls, moved: Moved, config: EncodeConfig, demand: Demand) -> "Spectrum":
        """The spectrum of what moved."""
        recipe = config.recipe
        singular = singular_values(moved.values, *demand.of(moved.values.shape), config.device)
        squares = singular.square() if moved.noise is None else signal_energies(singular, moved.noise)
        energies = squares[squares > 0].numpy()[:MAX_COMPONENTS]
        rows, columns = moved.values.shape
        size = float(singular[0]) / (rows * columns) ** 0.5
        if not HALF_FACTORS[0] <= size <= HALF_FACTORS[1]:
            recipe = recipe.without_floats()
        return cls(moved.subset, (rows, columns), energies, moved.bitmaps, recipe)

    def cost(self, bits: Bits) -> int:
        """Bytes of a component."""
        return sum(vector_bytes(side, bits) for side in self.shape) + NUMBER * width_of(bits).has_scales

    def best(self, price: float) -> Choice | None:
        """The best widths for each component at a price; None if none of them pays."""
        widths = self.recipe.widths
        worths = np.array([self.recipe.worth(bits) for bits in widths])
        costs = price * np.array([self.cost(bits) for bits in widths])
        value = self.energies[:, None] * worths - costs
        chosen = value.argmax(axis=1)
        pays = np.maximum.accumulate(value.max(axis=1) <= 0) == 0
        counts = [int(((chosen == i) & pays).sum()) for i in range(len(widths))]
        return self.choice(dict(zip(widths, counts, strict=True)))

    def choice(self, counts: dict[Bits, int]) -> Choice | None:
        """So many components of each width, the strongest with most bits; None without any."""
        bands = tuple(Band(counts[bits], bits) for bits in sorted(counts, reverse=True) if counts[bits])
        if not bands:
            return None
        worth = removed = 0.0
        first = 0
        for band in bands:
            energy = float(self.energies[first : first + band.rank].sum())
            worth += self.recipe.worth(band.bits) * energy
            removed += band.width.retained_energy * energy
            first += band.rank
        block = LowRank(*self.subset, bands)
        return Choice(block, coded_bytes(block, self.shape[1], self.bitmaps), worth, removed, self.bitmaps)

    def least(self) -> Choice:
        """One component in the fewest bits."""
        return self._changed({}, {self.recipe.widths[0]: 1})

    def better(self, bands: tuple[Band, ...]) -> Iterator[Choice]:
        """One component more, or a width more for one component."""
        counts = dict.fromkeys(self.recipe.widths, 0) | {band.bits: band.rank for band in bands}
        if sum(counts.values()) < len(self.energies):
            yield self._changed(counts, {self.recipe.widths[0]: 1})
        for narrow, wide in zip(self.recipe.widths, self.recipe.widths[1:], strict=False):
            if counts[narrow]:
                yield self._changed(counts, {narrow: -1, wide: 1})

    def _changed(self, counts: dict[Bits, int], by: dict[Bits, int]) -> Choice:
        changed = self.choice({bits: counts.get(bits, 0) + by.get(bits, 0) for bits in {**counts, **by}})
        assert changed is not None
        return changed


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix: left as the base has it, coded by singular vectors of all its rows or some, or in one of other ways.

    Parameters
    ----------
    spectra : tuple of Spectrum
        By how many rows are coded.
    others : tuple of Choice
        Costs ascending.
    energy : float
    is_new : bool
        Whether it is new, and so never left out.
    """

    spectra: tuple[Spectrum, ...]
    others: tuple[Choice, ...]
    energy: float
    is_new: bool = False

    def best(self, price: float) -> Choice:
        """See `Options`."""
        choices = [*self.others, *filter(None, (spectrum.best(price) for spectrum in self.spectra))]
        if self.is_new:
            choices.append(self.spectra[0].least())
        return max(choices, key=lambda choice: choice.worth - price * choice.cost)

    @property
    def wanted(self) -> Choice | None:
        """See `Options`."""
        if self.is_new:
            return self.others[0]
        spectrum = self.spectra[0]
        rank = len(spectrum.energies)
        if rank > LOW * min(spectrum.shape) or spectrum.energies.sum() < (1 - UNSEEN) * self.energy:
            return None
        return spectrum.choice({spectrum.recipe.widths[-1]: rank})

    def better(self, choice: Choice) -> Iterator[Choice]:
        """See `Options`."""
        block = choice.block
        for spectrum in self.spectra:
            if isinstance(block, LowRank):
                if spectrum.subset[2] == block.rows:
                    yield from spectrum.better(block.bands)
            elif choice.worth == 0 and len(spectrum.energies):
                yield from spectrum.better(())
        yield from (other for other in self.others if other.cost > choice.cost and other.worth > choice.worth)


def options_of(piece: CodedBlock | Delta | New, config: EncodeConfig, demand: Demand) -> Options:
    """The ways to store a piece.

    With a rank in the config there is one way only.
    """
    if isinstance(piece, CodedBlock):
        return Listed((_fixed(piece),), 0.0)
    if piece.stored is not None and piece.stored.spec.nbytes <= ALWAYS_EXACT:
        return Listed((_fixed(raw_block(piece.stored, piece.split)),), 0.0)
    if isinstance(piece, New):
        return _options_of_new(piece, config, demand)
    energy = piece.moved.signal_square
    if (rank := config.uniform_rank) is not None:
        return Listed((_of_rank(piece, rank, config.recipe),), energy)
    height, base, *_ = piece.moved.subset
    unchanged = Choice(Same(height, base), 0, 0.0, 0.0)
    if piece.is_matrix:
        others = unchanged, *_plain(piece, energy, config.recipe)
        return Matrix(_spectra(piece.moved, config, demand), others, energy)
    exact = _exact(piece, config.recipe.worth(None, vectors=1) * energy, energy)
    if isinstance(config.preset, Best) and config.preset.will_be_fitted:
        unchanged = replace(unchanged, worth=-ELEMENTS_WORTH * energy)
    return Listed((unchanged, *_values(piece, energy, config.recipe), *exact), energy)


def _fixed(coded: CodedBlock) -> Choice:
    return Choice(coded.block, len(coded.streams.raw), 0.0, 0.0)


def _exact(piece: Delta | New, worth: float, energy: float) -> Iterator[Choice]:
    """The exact bytes, if they are known, compressed where that helps."""
    if piece.stored is not None:
        yield replace(_fixed(raw_block(piece.stored, piece.split)), worth=worth, removed=energy)


def _plain(piece: Delta, energy: float, recipe: Recipe) -> Iterator[Choice]:
    """The exact bytes, if they are known, as they are."""
    if piece.stored is not None:
        rows = piece.stored.spec.matrix(piece.split)[0]
        yield Choice(Raw(rows), piece.stored.spec.nbytes, recipe.worth(None) * energy, energy)


def _values(piece: Delta, energy: float, recipe: Recipe) -> Iterator[Choice]:
    """Element by element, at each width."""
    moved = piece.moved
    fits_half = _fits_half(moved)
    for bits in ALL_BITS:
        if width_of(bits).is_float and not fits_half:
            continue
        block = Values(*moved.subset, bits=bits)
        removed = block.width.retained_energy**0.5 * energy
        cost = coded_bytes(block, moved.columns, moved.bitmaps)
        yield Choice(block, cost, recipe.worth(bits, 1) * energy, removed, moved.bitmaps)


def _fits_half(moved: Moved) -> bool:
    rms = (squared_norm(moved.values) / moved.values.numel()) ** 0.5
    return rms >= HALF_VALUES[0] and moved.largest <= HALF_VALUES[1]


def _spectra(moved: Moved, config: EncodeConfig, demand: Demand) -> tuple[Spectrum, ...]:
    """Of all coded rows; of a tall matrix also of those that moved most, if few hold much of what moved."""
    rows, columns = moved.values.shape
    shares = ROW_SHARES if config.recipe.row_subsets and rows >= TALL * columns else ROW_SHARES[:1]
    counts = sorted({max(columns, int(rows * share)) for share in shares}, reverse=True)
    return tuple(Spectrum.of(moved.largest_rows(count), config, demand) for count in counts)


def _of_rank(piece: Delta, rank: Rank | RankShare, recipe: Recipe) -> Choice:
    """The one way to store a piece where the rank is given: two bits an element."""
    moved = piece.moved
    if not piece.is_matrix:
        return min(next(_values(piece, 0.0, recipe)), *_exact(piece, 0.0, 0.0), key=lambda choice: choice.cost)
    shape = len(moved.values), moved.values.shape[1]
    count = min(rank.of(moved.height, moved.columns), *shape)
    spectrum = Spectrum(moved.subset, shape, np.zeros(count), moved.bitmaps, recipe)
    choice = spectrum.choice({2: count})
    assert choice is not None
    return choice


def _options_of_new(piece: New, config: EncodeConfig, demand: Demand) -> Options:
    """A new tensor may be coded, but never left out: 8 or 16 bits, exact, or, if it is large, by singular vectors."""
    moved, energy = piece.moved, squared_norm(piece.moved.values)
    (exact,) = _exact(piece, energy, energy)
    choices = sorted([*_new_values(piece, energy), exact], key=lambda choice: choice.cost)
    choices = [c for c in choices if c.cost < exact.cost] + [exact]
    if config.uniform_rank is not None:
        return Listed((exact,), 0.0)
    if min(moved.values.shape) < NEW_MATRIX_SIDE:
        return Listed(tuple(choices), 0.0)
    return Matrix((Spectrum.of(moved, config, demand),), tuple(choices), 0.0, is_new=True)


def _new_values(piece: New, energy: float) -> Iterator[Choice]:
    moved = piece.moved
    per_row = moved.values.shape[1] > 1
    eight = Values(*moved.subset, bits=8, per_row=per_row)
    removed = energy - _rounding_square(moved.values, per_row)
    yield Choice(eight, coded_bytes(eight, moved.columns, moved.bitmaps), removed, removed, moved.bitmaps)
    if _fits_half(moved):
        half = Values(*moved.subset, bits=16)
        removed = energy - energy * 2.0**-24
        yield Choice(half, coded_bytes(half, moved.columns, moved.bitmaps), removed, removed, moved.bitmaps)


def _rounding_square(values: torch.Tensor, per_row: bool) -> float:
    """Squared error of rounding to 255 steps, the largest magnitude of a row (or of all) being the last."""
    largest = values.abs().amax(dim=1) if per_row else values.abs().max().expand(len(values))
    return float((largest.double() / 127).square().sum() / 12 * values.shape[1])
