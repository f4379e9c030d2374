"""The spectrum of a matrix as components to choose from, each at any width."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtscodec.encoding.budget.candidate import NUMBER_BYTES, Candidate, coded_bytes
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.encoded_block import ChangedDelta
from dtscodec.format.blocks import Band, BaseRows, LowRank
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import Bits, width_of

OVERSAMPLING = 2
"""Multiple of the rank under an evenly shared budget for which singular values are computed: strong matrices get more
than their share."""
LEAST_COMPUTED = 160
"""Singular values that are computed in any case: adapters have ranks up to 128."""
HALF_FACTORS = (2.0**-34, 2.0**8)
"""Range of root mean squares of matrices whose factors float16 holds: elements of factors are about the square root of
it, and the largest ones well above."""


@dataclass(frozen=True, slots=True)
class SpectrumRequest:
    """The part of each spectrum that must be computed; the rest is extrapolated where that saves time.

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
        """Return the least number of singular values to compute for a matrix, and the share of its energy.

        Parameters
        ----------
        shape : (int, int)
            Coded rows and columns.
        """
        # The rank if the budget were shared evenly among parameters, in components of the narrowest width.
        component = sum(vector_bytes(side, 2) for side in shape) + NUMBER_BYTES
        even = self.density * math.prod(shape) / component
        return max(LEAST_COMPUTED, int(OVERSAMPLING * even)), self.share


@dataclass(frozen=True, slots=True)
class ComponentSpectrum:
    """Components of a matrix, or of some of its rows.

    Parameters
    ----------
    subset : (height, base, rows, columns)
        The first fields of a block.
    shape : (int, int)
        Coded rows and columns.
    energies : float64 [k]
        Squared singular values above the noise, descending.
    bitmaps : bytes
        Bitmaps of coded rows and columns.
    recipe : Recipe
        The recipe in force; its widths are those that this matrix can have.
    energy : float
        Squared norm of the delta, without rounding noise.
    dithers_above : float
        Squared norm of the predicted error above which weights are dithered.
    """

    subset: tuple[int, BaseRows | None, int | None, int | None]
    shape: tuple[int, int]
    energies: NDArray[np.float64]
    bitmaps: bytes
    recipe: Recipe
    energy: float = 0.0
    dithers_above: float = math.inf

    @classmethod
    def of(
        cls, delta: ChangedDelta, config: EncodeConfig, request: SpectrumRequest, may_dither: bool = False
    ) -> "ComponentSpectrum":
        """Return the spectrum of a delta without rounding noise.

        Parameters
        ----------
        delta : DenseDelta or FactoredDelta
            Its coded rows and columns.
        config : EncodeConfig
            Holds the recipe and the device.
        request : SpectrumRequest
            How much of the spectrum to compute.
        may_dither : bool
            Whether weights may be rounded by thresholds: they are in bfloat16, and the delta was taken from them.
        """
        energies, largest = delta.spectrum(*request.of(delta.shape), config.device)
        # Floating-point codes have no scales: they are left out for factors beyond their range.
        recipe = config.recipe if fits_half_factors(largest, delta.shape) else config.recipe.without_floats()
        threshold = dither_threshold(delta, recipe, may_dither)
        return cls(delta.subset, delta.shape, energies, delta.bitmaps, recipe, delta.energy, threshold)

    def cost(self, bits: Bits) -> int:
        """Return the bytes of a component at a width.

        Parameters
        ----------
        bits : int
            Bits per code.
        """
        return sum(vector_bytes(side, bits) for side in self.shape) + NUMBER_BYTES * width_of(bits).has_scales

    def best(self, multiplier: float) -> Candidate | None:
        """Return the candidate of the largest benefit minus multiplier times cost; None if no component pays.

        Parameters
        ----------
        multiplier : float
            The Lagrange multiplier: benefit per byte.
        """
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
        """Return the candidate with given numbers of components; None without any.

        The strongest components take the widest codes.

        Parameters
        ----------
        counts : dict
            Width -> number of components.
        """
        bands = tuple(Band(counts[bits], bits) for bits in sorted(counts, reverse=True) if counts[bits])
        if not bands:
            return None
        # Bands take components in descending order of energy, widest codes first.
        benefit = removed = 0.0
        first = 0
        for band in bands:
            energy = float(self.energies[first : first + band.rank].sum())
            benefit += self.recipe.benefit(band.bits) * energy
            removed += band.width.retained_energy * energy
            first += band.rank
        block = LowRank(*self.subset, bands, is_dithered=self.energy - removed > self.dithers_above)
        cost = coded_bytes(block, self.shape[1], self.bitmaps)
        return Candidate(block, cost, benefit, removed, self.bitmaps)

    def smallest(self) -> Candidate:
        """Return the candidate of one component in the fewest bits."""
        return self._changed({}, {self.recipe.widths[0]: 1})

    def upgrades(self, bands: tuple[Band, ...]) -> Iterator[Candidate]:
        """Yield candidates with one component more than some bands, or with one component a width wider.

        Parameters
        ----------
        bands : tuple of Band
            Bands of the current choice; empty if no component is coded.
        """
        counts = dict.fromkeys(self.recipe.widths, 0) | {band.bits: band.rank for band in bands}
        # One component more, in the fewest bits.
        if sum(counts.values()) < len(self.energies):
            yield self._changed(counts, {self.recipe.widths[0]: 1})
        # One component a width wider.
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
    # The Frobenius norm of such a matrix is its singular value.
    return largest / math.sqrt(math.prod(shape))


def dither_threshold(delta: ChangedDelta, recipe: Recipe, may_dither: bool) -> float:
    """Return the squared norm of the predicted error above which weights are dithered; infinity if they never are.

    A delta that is known up to the fine-tune's rounding noise is rounded to nearest, which gives its own bits.

    Parameters
    ----------
    delta : DenseDelta or FactoredDelta
        The coded rows and columns.
    recipe : Recipe
        The recipe in force.
    may_dither : bool
        As for `ComponentSpectrum.of`.
    """
    return delta.noise_energy if may_dither and recipe.dithers else math.inf


def fits_half_factors(largest: float, shape: tuple[int, int]) -> bool:
    """Return whether float16, whose codes have no scales, holds the factors of a matrix.

    Parameters
    ----------
    largest : float
        The largest singular value of the matrix.
    shape : (int, int)
        Rows and columns of the matrix.
    """
    return HALF_FACTORS[0] <= root_mean_square(largest, shape) <= HALF_FACTORS[1]
