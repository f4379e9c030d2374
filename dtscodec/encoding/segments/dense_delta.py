"""A delta as a matrix of its elements: the changed rows and columns of it, which are coded."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.encoding.segments.coded_subset import CodedSubset, largest
from dtscodec.format.blocks import MAX_COMPONENTS, BaseRows, Mask
from dtscodec.linalg.chunks import cache_sized, squared_norm
from dtscodec.linalg.rounding_noise import Noise, signal_energies
from dtscodec.linalg.spectrum import singular_values


@dataclass(frozen=True, slots=True)
class DenseDelta(CodedSubset):
    """The changed rows and columns of a delta, or of some rows of a new tensor; see also `FactoredDelta`.

    Unchanged rows and columns are left out: the four levels have no zero, and the noise of an SVD would change them.

    Parameters
    ----------
    values : float32 [coded rows, coded columns]
        Elements of the coded rows and columns.
    rows, cols : bool mask or None
        Rows and columns that are coded; None for all of them.
    height, columns : int
        Size of the whole delta.
    base : BaseRows or None
        The base rows that it was taken from; None for a new tensor, a delta from zero.
    noise : Noise or None
        The rounding noise in the values.
    """

    values: Tensor
    rows: Mask | None
    cols: Mask | None
    height: int
    columns: int
    base: BaseRows | None
    noise: Noise | None = None

    @classmethod
    def of(cls, delta: Tensor, base: BaseRows | None, noise: Noise | None = None) -> "DenseDelta | None":
        """Return the changed rows and columns, those with an element other than 0; None if there are none.

        Parameters
        ----------
        delta : float32 [m, n]
            The whole delta.
        base, noise
            As of the class, for the whole delta.
        """
        rows, cols = _changed(delta, 1), _changed(delta, 0)
        if rows is not None and not rows.any():
            return None
        return cls(delta, None, None, delta.shape[0], delta.shape[1], base, noise)._select(rows, cols)

    def _select(self, rows: Mask | None, cols: Mask | None) -> "DenseDelta":
        selected_rows, selected_cols = map(_as_tensor_mask, (rows, cols), self.values.shape)
        values = self.values if rows is None else self.values[selected_rows]
        values = values if cols is None else values[:, selected_cols]
        noise = self.noise.subset(selected_rows, selected_cols) if self.noise else None
        return replace(self, values=values, rows=rows, cols=cols, noise=noise)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of coded rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def energy(self) -> float:
        """Squared norm of the values, without rounding noise."""
        return max(0.0, squared_norm(self.values) - self.noise_energy)

    @property
    def noise_energy(self) -> float:
        """Expected squared norm of the rounding noise in the values."""
        return self.noise.total if self.noise else 0.0

    @property
    def largest_magnitude(self) -> float:
        """Largest magnitude of the values."""
        least, most = self.values.aminmax()
        return max(-float(least), float(most))

    def largest_rows(self, count: int) -> "DenseDelta":
        """Return the coded rows of the largest norms, the first ones on ties.

        Parameters
        ----------
        count : int
            Number of rows; all are returned if there are no more.
        """
        if count >= len(self.values):
            return self
        # The mask among the coded rows selects values; as a mask of all rows it becomes the bitmap.
        within = largest(self.row_energies(), count)
        smaller = replace(self, rows=None, cols=None)._select(within, None)
        return replace(smaller, rows=self.rows_among(within), cols=self.cols)

    def row_energies(self) -> Tensor:
        """Return the squared norm of each coded row: float64."""
        norms = torch.empty(len(self.values), dtype=torch.float64)
        # Summed in float64, without a wide copy of the whole matrix.
        for part in cache_sized(*self.values.shape):
            norms[part] = torch.linalg.vector_norm(self.values[part], dim=1, dtype=torch.float64)
        return norms.square()

    def spectrum(self, least: int, share: float, device: str) -> tuple[NDArray[np.float64], float]:
        """Return the squared singular values above the rounding noise, descending, and the largest singular value.

        Parameters
        ----------
        least : int
            Least number of singular values to compute; the others may be extrapolated.
        share : float
            Share of the energy that computed singular values must cover.
        device : str
            Device for products of large matrices.
        """
        singular = singular_values(self.values, least, share, device)
        # Remove the noise from each singular value.
        squares = singular.square() if self.noise is None else signal_energies(singular, self.noise)
        return squares[squares > 0].numpy()[:MAX_COMPONENTS], float(singular[0])

    def compare_product(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> tuple[float, float]:
        """Return the norm of a decoded delta, and the squared norm of its error beyond rounding noise.

        Parameters
        ----------
        left : float32 [r, coded rows]
            Left factor of the decoded delta, transposed.
        right : float32 [r, coded columns]
            Right factor.
        """
        decoded = torch.from_numpy(np.ascontiguousarray(left.T @ right))
        return squared_norm(decoded) ** 0.5, self.error_energy(decoded)

    def error_energy(self, decoded: Tensor) -> float:
        """Return the squared norm of a decoded delta's error beyond rounding noise, 0 for a new tensor.

        Parameters
        ----------
        decoded : float32 [coded rows, coded columns]
            Is overwritten.
        """
        if self.base is None:
            return 0.0
        # In place, as the matrix may be large. Rounding noise counts neither as delta nor as error.
        return max(0.0, squared_norm(decoded.sub_(self.values)) - self.noise_energy)


def _as_tensor_mask(mask: Mask | None, count: int) -> Tensor:
    """Return a mask of rows or columns as a tensor: bool [count], all True for None."""
    return torch.ones(count, dtype=torch.bool) if mask is None else torch.from_numpy(mask)


def _changed(delta: Tensor, across: int) -> Mask | None:
    """Return which rows (across = 1) or columns (across = 0) hold an element other than 0; None for all of them."""
    mask: Mask = (delta != 0).any(dim=across).numpy()
    return None if mask.all() else mask
