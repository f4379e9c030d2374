"""Candidate encodings of a matrix: components of its spectrum, each at any width, of all its rows or of some."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.encoding.budget.candidate import NUMBER, Candidate, coded_bytes
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.encoded_block import ChangedDelta
from dtscodec.format.blocks import Band, BaseRows, LowRank
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import Bits, width_of

Floats: TypeAlias = NDArray[np.float64]

OVERSAMPLING = 2
"""Multiple of the rank under an evenly shared budget for which singular values are computed: strong matrices get more
than their share."""
LEAST_COMPUTED = 160
"""Singular values that are computed in any case: adapters have ranks up to 128."""
HALF_FACTORS = (2.0**-34, 2.0**8)
"""Range of root mean squares of matrices whose factors float16 holds: factors have about the root of it, and peaks."""
TALL = 4
"""A matrix of at least this ratio of height to width may have most of its rows left out."""
ROW_SHARES = (1, 1 / 4, 1 / 16, 1 / 64)
"""Shares of a tall matrix's rows that candidates code."""
LOW_RANK = 1 / 4
"""Share of a matrix's smaller side up to which a rank is low."""
BELOW_NOISE = 0.01
"""Share of a delta's energy that may lie under the rounding noise where its rank is determined."""


@dataclass(frozen=True, slots=True)
class SpectrumRequest:
    """How much of each spectrum must be computed; the rest is extrapolated where that saves time.

    Parameters
    ----------
    density : float
        Bytes of the pack per parameter; 0 unless a size is asked for.
    share : float
        Share of the energy that computed singular values must cover.
    """

    density: float
    share: float

    def of(self, shape: Sequence[int]) -> tuple[int, float]:
        """Return the least number of singular values to compute for a matrix, and the share of its energy."""
        component = sum(vector_bytes(side, 2) for side in shape) + NUMBER
        even = self.density * math.prod(shape) / component
        return max(LEAST_COMPUTED, int(OVERSAMPLING * even)), self.share


@dataclass(frozen=True, slots=True)
class ComponentSpectrum:
    """Components of a matrix, or of some of its rows.

    Parameters
    ----------
    subset : (height, base, rows, columns)
        As blocks have them.
    shape : (int, int)
        Coded rows and columns.
    energies : float64 [k]
        Squared singular values above the noise, descending.
    bitmaps : bytes
        Bitmaps of coded rows and columns.
    recipe : Recipe
    """

    subset: tuple[int, BaseRows | None, int | None, int | None]
    shape: tuple[int, int]
    energies: Floats
    bitmaps: bytes
    recipe: Recipe

    @classmethod
    def of(cls, delta: ChangedDelta, config: EncodeConfig, request: SpectrumRequest) -> "ComponentSpectrum":
        """Return the spectrum of a delta without rounding noise.

        Parameters
        ----------
        delta : DenseDelta or FactoredDelta
            Its coded rows and columns.
        config : EncodeConfig
            Holds the recipe and the device.
        request : SpectrumRequest
            How much of the spectrum to compute.
        """
        energies, largest = delta.spectrum(*request.of(delta.shape), config.device)
        recipe = config.recipe if fits_half_factors(largest, delta.shape) else config.recipe.without_floats()
        return cls(delta.subset, delta.shape, energies, delta.bitmaps, recipe)

    def cost(self, bits: Bits) -> int:
        """Return the bytes of a component at a width."""
        return sum(vector_bytes(side, bits) for side in self.shape) + NUMBER * width_of(bits).has_scales

    def best(self, multiplier: float) -> Candidate | None:
        """Return the candidate of the largest benefit minus multiplier times cost; None if no component pays."""
        widths = self.recipe.widths
        benefits = np.array([self.recipe.benefit(bits) for bits in widths])
        costs = multiplier * np.array([self.cost(bits) for bits in widths])
        # Each component takes the width of the largest net benefit.
        net = self.energies[:, None] * benefits - costs
        chosen = net.argmax(axis=1)
        # The first component that does not pay ends the block: energies descend.
        pays = np.maximum.accumulate(net.max(axis=1) <= 0) == 0
        counts = [int(((chosen == i) & pays).sum()) for i in range(len(widths))]
        return self.candidate(dict(zip(widths, counts, strict=True)))

    def candidate(self, counts: dict[Bits, int]) -> Candidate | None:
        """Return the candidate of so many components of each width, the strongest with most bits; None without any.

        Parameters
        ----------
        counts : dict
            Width -> number of components.
        """
        bands = tuple(Band(counts[bits], bits) for bits in sorted(counts, reverse=True) if counts[bits])
        if not bands:
            return None
        benefit = removed = 0.0
        first = 0
        for band in bands:
            energy = float(self.energies[first : first + band.rank].sum())
            benefit += self.recipe.benefit(band.bits) * energy
            removed += band.width.retained_energy * energy
            first += band.rank
        block = LowRank(*self.subset, bands)
        cost = coded_bytes(block, self.shape[1], self.bitmaps)
        return Candidate(block, cost, benefit, removed, self.bitmaps)

    def smallest(self) -> Candidate:
        """Return the candidate of one component in the fewest bits."""
        return self._changed({}, {self.recipe.widths[0]: 1})

    def upgrades(self, bands: tuple[Band, ...]) -> Iterator[Candidate]:
        """Yield candidates with one component more than some bands, or with one component a width wider."""
        counts = dict.fromkeys(self.recipe.widths, 0) | {band.bits: band.rank for band in bands}
        if sum(counts.values()) < len(self.energies):
            yield self._changed(counts, {self.recipe.widths[0]: 1})
        for narrow, wide in zip(self.recipe.widths, self.recipe.widths[1:], strict=False):
            if counts[narrow]:
                yield self._changed(counts, {narrow: -1, wide: 1})

    def _changed(self, counts: dict[Bits, int], by: dict[Bits, int]) -> Candidate:
        changed = self.candidate({bits: counts.get(bits, 0) + by.get(bits, 0) for bits in {**counts, **by}})
        assert changed is not None
        return changed


def root_mean_square(largest: float, shape: tuple[int, int]) -> float:
    """Return the root mean square of the elements of a matrix with one singular value only.

    Parameters
    ----------
    largest : float
        The singular value.
    shape : (int, int)
        Rows and columns.
    """
    return largest / math.sqrt(math.prod(shape))


def fits_half_factors(largest: float, shape: tuple[int, int]) -> bool:
    """Return whether float16, which has no scales beside it, holds the factors of a matrix.

    Parameters
    ----------
    largest, shape
        The largest singular value of the matrix, and its rows and columns.
    """
    return HALF_FACTORS[0] <= root_mean_square(largest, shape) <= HALF_FACTORS[1]


@dataclass(frozen=True, slots=True)
class MatrixCandidates:
    """Candidate encodings of a matrix.

    Parameters
    ----------
    spectra : tuple of ComponentSpectrum
        By number of coded rows, descending.
    others : tuple of Candidate
        Candidates without components; costs ascending.
    energy : float
        See `Candidates`.
    is_new : bool
        Whether the matrix has no counterpart in the base, so that it cannot be left out.
    """

    spectra: tuple[ComponentSpectrum, ...]
    others: tuple[Candidate, ...]
    energy: float
    is_new: bool = False

    def best(self, multiplier: float) -> Candidate:
        """See `Candidates`."""
        candidates = [*self.others, *filter(None, (spectrum.best(multiplier) for spectrum in self.spectra))]
        if self.is_new:
            candidates.append(self.spectra[0].smallest())
        return max(candidates, key=lambda candidate: candidate.benefit - multiplier * candidate.cost)

    @property
    def preferred(self) -> Candidate | None:
        """See `Candidates`."""
        if self.is_new:
            return self.others[0]
        spectrum = self.spectra[0]
        rank = len(spectrum.energies)
        # A delta of low rank: few components hold all of its energy but for what noise hides.
        if rank > LOW_RANK * min(spectrum.shape) or spectrum.energies.sum() < (1 - BELOW_NOISE) * self.energy:
            return None
        return spectrum.candidate({spectrum.recipe.widths[-1]: rank})

    def upgrades(self, candidate: Candidate) -> Iterator[Candidate]:
        """See `Candidates`."""
        block = candidate.block
        for spectrum in self.spectra:
            if isinstance(block, LowRank):
                # A component more or wider, for the same rows.
                if spectrum.subset[2] == block.rows:
                    yield from spectrum.upgrades(block.bands)
            elif candidate.benefit == 0 and len(spectrum.energies):
                # From the base's rows to a first component.
                yield from spectrum.upgrades(())
        yield from (other for other in self.others if other.cost > candidate.cost and other.benefit > candidate.benefit)


def matrix_candidates(
    delta: ChangedDelta, others: Sequence[Candidate], config: EncodeConfig, request: SpectrumRequest
) -> MatrixCandidates:
    """Return the candidate encodings of a delta that is a matrix.

    Parameters
    ----------
    delta : DenseDelta or FactoredDelta
        The changed rows and columns.
    others : sequence of Candidate
        Candidates without components; costs ascending.
    config : EncodeConfig
        Holds the recipe and the device.
    request : SpectrumRequest
        How much of each spectrum to compute.
    """
    counts = _row_counts(*delta.shape, config.recipe)
    spectra = tuple(ComponentSpectrum.of(delta.largest_rows(count), config, request) for count in counts)
    return MatrixCandidates(spectra, tuple(others), delta.energy)


def _row_counts(rows: int, columns: int, recipe: Recipe) -> list[int]:
    """Return how many rows of a matrix candidates code, descending: all, and of a tall one also the most changed."""
    shares = ROW_SHARES if recipe.row_subsets and rows >= TALL * columns else ROW_SHARES[:1]
    return sorted({max(columns, int(rows * share)) for share in shares}, reverse=True)
