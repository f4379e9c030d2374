"""What moved in a delta that is known by its factors: its options, and its codes, without multiplying it out.

The inverse of `FactoredPart.code` is `dtscodec.format.blocks.LowRankContent.delta`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dtscodec.encoding.budget.candidate import Candidate, Candidates
from dtscodec.encoding.budget.component_spectrum import HALF_FACTORS, ComponentSpectrum
from dtscodec.encoding.budget.matrix_candidates import MatrixCandidates, row_counts
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.fitting.coordinate_descent import Refined
from dtscodec.encoding.presets.best import rounded, rounded_tensor
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.coded_subset import CodedSubset, largest
from dtscodec.encoding.segments.segment import CodedBlock
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import MAX_COMPONENTS, BandFactors, BaseRows, Block, LowRank, Mask, Same
from dtscodec.format.blocks.band import scaled_factors
from dtscodec.format.streams import Streams
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors
from dtscodec.linalg.svd import canonical_signs, factored_triplets


@dataclass(frozen=True, slots=True)
class FactoredPart(CodedSubset):
    """The rows and columns of a factored delta that are not zero; see `dtscodec.encoding.segments.changed.Moved`.

    Parameters
    ----------
    u : float64 [coded rows, k]
        Left singular vectors, k >= 1.
    s : float64 [k]
        Singular values, descending.
    v : float64 [k, coded columns]
        Right singular vectors.
    rows, cols : bool mask or None
        Rows and columns that are coded; None for all of them.
    height, columns : int
        Size of the delta.
    base : BaseRows
        The rows that it is added to.
    """

    u: Tensor
    s: Tensor
    v: Tensor
    rows: Mask | None
    cols: Mask | None
    height: int
    columns: int
    base: BaseRows

    @classmethod
    def of(cls, delta: Factored, base: BaseRows, floor: float = 0.0) -> "FactoredPart | None":
        """Find what moved; None if nothing did.

        Parameters
        ----------
        delta : Factored
            Finite.
        base : BaseRows
        floor : float
            Singular values up to this are rounding.
        """
        rows, cols = _moved(delta.left), _moved(delta.right.T)
        found = factored_triplets(delta.rows(rows).T.rows(cols).T)
        k = min(int((found.s > floor).sum()), MAX_COMPONENTS)
        coded_rows, coded_cols = (None if mask.all() else mask.numpy() for mask in (rows, cols))
        return cls(found.u[:, :k], found.s[:k], found.v[:k], coded_rows, coded_cols, *delta.shape, base) if k else None

    @property
    def shape(self) -> tuple[int, int]:
        """Coded rows and columns."""
        return len(self.u), self.v.shape[1]

    @property
    def square(self) -> float:
        """Squared norm."""
        return float(self.s.square().sum())

    @property
    def size(self) -> float:
        """Root mean square of a matrix of this largest singular value alone."""
        return float(self.s[0]) / math.sqrt(math.prod(self.shape))

    def largest_rows(self, count: int) -> "FactoredPart":
        """Only so many of the coded rows: those that moved most, the first ones on ties."""
        if count >= len(self.u):
            return self
        left = self.u * self.s
        within = largest(left.square().sum(1), count)
        found = factored_triplets(Factored(left[torch.from_numpy(within)], self.v))
        return replace(self, u=found.u, s=found.s, v=found.v, rows=self.rows_among(within))

    def candidates(self, config: EncodeConfig) -> Candidates:
        """Return the candidate encodings: none of it, or components of all rows, or of the most changed ones."""
        rows, columns = self.shape
        counts = row_counts(rows, columns, config.recipe)
        spectra = tuple(self.largest_rows(count)._spectrum(config.recipe) for count in counts)
        return MatrixCandidates(spectra, (Candidate(Same(self.height, self.base), 0, 0.0, 0.0),), self.square)

    def _spectrum(self, recipe: Recipe) -> ComponentSpectrum:
        if not HALF_FACTORS[0] <= self.size <= HALF_FACTORS[1]:
            recipe = recipe.without_floats()
        return ComponentSpectrum(self.subset, self.shape, self.s.square().numpy(), self.bitmaps, recipe)

    def plan(self, block: Block, recipe: Recipe) -> "CodedBlock | FactoredPlan":
        """Give it the block that has been chosen for it, one of its options."""
        if isinstance(block, LowRank):
            rows = len(self.u) if block.rows is None else block.rows
            return FactoredPlan(self.largest_rows(rows), block, recipe, self.square)
        if isinstance(block, Same):
            return CodedBlock(block, Streams(), self.square, self.square)
        raise TypeError(f"expected one of the options of a factored delta, got {block.kind}")

    def code(self, block: LowRank, recipe: Recipe) -> CodedBlock:
        """Code its leading components, as many as the block has, at the widths of its bands.

        Raises
        ------
        EncodeError
            It is beyond what float32 can hold.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            unit = 2.0 ** math.frexp(float(self.s[0]))[1]  # Squares of extreme values are beyond float32.
            widths = [band.bits for band in block.bands for _ in range(band.rank)]
            factors = self._factors(block.rank, unit)
            scaled = Factored((self.u * (self.s / unit)).float(), self.v.float())
            if all(band.width.is_float for band in block.bands):  # There is nothing to make up for.
                recipe = replace(recipe, rounds=0)
            refined = Refined(scaled, factors, widths, recipe)
            scales = refined.solve_scales(rounded_tensor)
            scales *= refined.gain(scales, 0.0)
            return self._measured(block, [band.rounded(rounded) for band in refined.bands(scales * unit)])

    def _factors(self, rank: int, unit: float) -> Factors:
        u, s, v = canonical_signs(self.u[:, :rank], self.s[:rank] / unit, self.v[:rank])
        spectrum = torch.nn.functional.pad(self.s / unit, (0, min(self.shape) - len(self.s)))
        return Factors(u.float(), s.float(), v.float(), spectrum.float())

    def _measured(self, block: LowRank, bands: Sequence[BandFactors]) -> CodedBlock:
        """Compute the norm and the error of quantized components, and pack them."""
        left, right = scaled_factors(bands, np.float32)
        decoded = Factored(torch.from_numpy(np.ascontiguousarray(left.T)), torch.from_numpy(right))
        numbers, codes = LowRank.join(math.sqrt(decoded.square()), bands)
        numbers = rounded(numbers)
        if not np.isfinite(numbers).all():
            raise EncodeError("expected a delta whose norm float32 can hold, got a larger one")
        error = Factored(self.u * self.s, self.v).minus(decoded.double()).square()
        return CodedBlock(block, Streams(self.bitmaps, numbers, codes), self.square, error)


@dataclass(frozen=True, slots=True)
class FactoredPlan:
    """Rows that are to be coded, the block that they become, and the squared norm of all; see `Planned`."""

    part: FactoredPart
    block: LowRank
    recipe: Recipe
    square: float

    def code(self) -> CodedBlock:
        """Code it."""
        coded, left = self.part.code(self.block, self.recipe), max(0.0, self.square - self.part.square)
        return replace(coded, delta_square=coded.delta_square + left, error_square=coded.error_square + left)


def _moved(vectors: Tensor) -> Tensor:
    """Which rows hold an element that is not 0: bool [m]."""
    return (vectors != 0).any(dim=1)
