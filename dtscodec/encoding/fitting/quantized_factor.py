"""One factor of a low-rank delta as quantized vectors, fitted one at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.format.streams import NO_NUMBERS
from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.lloyd_max import fit_levels
from dtscodec.quantize.scalar import TINY, FittedVector, QuantizedVectors, fit_scale, quantize_vector
from dtscodec.quantize.widths import Bits, width_of


class QuantizedFactor:
    """One factor of a low-rank delta: r vectors of n elements, each quantized at its width.

    Parameters
    ----------
    vectors : float32 [r, n]
        Vectors of any norms.
    widths : sequence of int
        Bits per code of each vector; descending.
    recipe : Recipe
        Kind and number of levels.

    Attributes
    ----------
    vectors : float32 [r, n]
        The decoded vectors: scale times the values of the codes.
    levels : float32 [tables, levels]
        Code books of the vectors of two bits.
    """

    def __init__(self, vectors: Tensor, widths: Sequence[Bits], recipe: Recipe) -> None:
        self._widths, self._recipe = widths, recipe
        self._coarse = [k for k, bits in enumerate(widths) if width_of(bits).stored_levels]
        # The code book that each of these vectors uses: one for all, or one each.
        self._table = {k: i if recipe.per_vector else 0 for i, k in enumerate(self._coarse)}
        self.levels = self._first_levels(vectors[self._coarse])
        self._fitted = [self._quantize(k, vector) for k, vector in enumerate(vectors)]
        self.vectors = torch.stack([fitted.values for fitted in self._fitted])

    def _first_levels(self, vectors: Tensor) -> Tensor:
        """Return code books for the vectors of two bits, of root mean square 1: float32 [tables, levels]."""
        if not len(vectors):
            return torch.empty(0, self._recipe.levels)
        # Vectors of root mean square 1: their norms are in the scales.
        unit = vectors / vectors.square().mean(1, keepdim=True).sqrt().clamp(min=TINY)
        sets = unit if self._recipe.per_vector else unit.reshape(1, -1)
        if not self._recipe.fitted_levels:
            return four_groups(sets)[1]
        return torch.stack([fit_levels(values, self._recipe.levels) for values in sets])

    def _code_book(self, k: int) -> Tensor | None:
        """Return the levels of vector k; None if its codes are the values themselves."""
        width = width_of(self._widths[k])
        if width.fixed_levels is not None:
            return torch.from_numpy(width.fixed_levels)
        return self.levels[self._table[k]] if width.stored_levels else None

    def _quantize(self, k: int, vector: Tensor) -> FittedVector:
        """Quantize a target for vector k."""
        return quantize_vector(vector, self._widths[k], self._code_book(k))

    def refit(self, other: Tensor, products: Tensor) -> None:
        """Fit each vector in turn to the residual of all others: one round of coordinate descent.

        Parameters
        ----------
        other : float32 [r, m]
            The other factor's decoded vectors.
        products : float32 [r, n]
            `other` times the delta.
        """
        overlaps = other @ other.T
        energies = overlaps.diagonal().clamp(min=TINY)
        targets = torch.empty_like(self.vectors)
        for k in range(len(self._widths)):
            # Target of least squares: the residual of all components, with this vector's own part added back.
            rest = products[k] - overlaps[k] @ self.vectors
            targets[k] = rest / energies[k] + self.vectors[k] * (overlaps[k, k] / energies[k])
            # Quantize at once, so that the next vectors make up for this one's rounding.
            self._fitted[k] = self._quantize(k, targets[k])
            self.vectors[k] = self._fitted[k].values
        if self._recipe.fitted_levels:
            self._refit_levels(targets, energies)

    def _refit_levels(self, targets: Tensor, energies: Tensor) -> None:
        """Set the levels to the weighted means of their cells, as in Lloyd's iteration.

        Parameters
        ----------
        targets : float32 [r, n]
            Target of each vector.
        energies : float32 [r]
            Squared norms of the other factor's vectors: the weight of each vector's error in the product.
        """
        # Means over the elements that each level codes.
        sums, weights = (torch.zeros(self.levels.shape, dtype=torch.float64) for _ in range(2))
        for k in self._coarse:
            fitted, table, count = self._fitted[k], self._table[k], self.levels.shape[1]
            weight = float(energies[k]) * fitted.scale
            sums[table] += weight * torch.bincount(fitted.codes, targets[k].double(), count)
            weights[table] += weight * fitted.scale * torch.bincount(fitted.codes, minlength=count)
        means = torch.where(weights > 0, sums / weights.clamp(min=TINY), self.levels.double()).float()
        if (means.diff(dim=1) < 0).any():
            return  # Code books ascend (rule N2).
        self.levels = means
        # The codes stay; scales and decoded vectors follow from the new levels.
        for k in self._coarse:
            fitted = self._fitted[k]
            self._fitted[k] = fit_scale(targets[k], fitted.codes, self.levels[self._table[k]][fitted.codes])
            self.vectors[k] = self._fitted[k].values

    def round_levels(self, rounded: Callable[[Tensor], Tensor]) -> None:
        """Round the levels as the pack stores them.

        Parameters
        ----------
        rounded : callable
            Rounds numbers as the pack stores them.
        """
        self.levels = rounded(self.levels)

    def plain(self) -> Tensor:
        """Return the values of the codes, without scales: float32 [r, n]."""
        return torch.stack([self._plain(k, fitted) for k, fitted in enumerate(self._fitted)])

    def _plain(self, k: int, fitted: FittedVector) -> Tensor:
        code_book = self._code_book(k)
        return fitted.codes if code_book is None else code_book[fitted.codes]

    def quantized(self, chosen: Sequence[int], factors: Tensor | None = None) -> QuantizedVectors:
        """Return some vectors of one width.

        Parameters
        ----------
        chosen : sequence of int
            Their places, in the order of the result.
        factors : float32 [r], optional
            Factors on the vectors, for codes that are the values themselves.
        """
        width = width_of(self._widths[chosen[0]])
        codes = torch.stack([self._fitted[k].codes for k in chosen])
        if factors is not None:
            codes = codes * factors[list(chosen), None]
        levels = self.levels.numpy() if width.stored_levels else width.code_books(NO_NUMBERS)
        return QuantizedVectors(codes.numpy().astype(width.dtype), levels, width.bits)
