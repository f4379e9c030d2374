"""A delta that is known by its factors, such as an adapter's, and never multiplied out."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.encoding.segments.coded_subset import CodedSubset, largest
from dtscodec.format.blocks import MAX_COMPONENTS, BaseRows, Mask
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.svd import factored_triplets


@dataclass(frozen=True, slots=True)
class FactoredDelta(CodedSubset):
    """The changed rows and columns of a delta by their singular triplets; see also `DenseDelta`.

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
        Size of the whole delta.
    base : BaseRows
        The base rows that it is added to.
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
    def of(cls, delta: Factored, base: BaseRows, floor: float = 0.0) -> "FactoredDelta | None":
        """Return the changed rows and columns, those with an element other than 0; None if there are none.

        Parameters
        ----------
        delta : Factored
            The whole delta, finite, [m, n].
        base : BaseRows
            The m base rows that it is added to.
        floor : float
            Singular values up to this one are rounding errors and count as 0.
        """
        # A zero row of the left factor is an unchanged row, a zero column of the right one an unchanged column.
        rows, cols = _nonzero_rows(delta.left), _nonzero_rows(delta.right.T)
        found = factored_triplets(delta.rows(rows).T.rows(cols).T)
        # Truncate to singular values that are no rounding errors.
        k = min(int((found.s > floor).sum()), MAX_COMPONENTS)
        coded_rows, coded_cols = (None if mask.all() else mask.numpy() for mask in (rows, cols))
        return cls(found.u[:, :k], found.s[:k], found.v[:k], coded_rows, coded_cols, *delta.shape, base) if k else None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of coded rows and columns."""
        return len(self.u), self.v.shape[1]

    @property
    def energy(self) -> float:
        """Squared norm."""
        return float(self.s.square().sum())

    @property
    def noise_energy(self) -> float:
        """0: factors are known without rounding noise."""
        return 0.0

    def largest_rows(self, count: int) -> "FactoredDelta":
        """Return the coded rows of the largest norms, the first ones on ties.

        Parameters
        ----------
        count : int
            Number of rows; all are returned if there are no more.
        """
        if count >= len(self.u):
            return self
        left = self.u * self.s
        within = largest(left.square().sum(1), count)
        # Some rows of a matrix have other singular vectors than the whole.
        found = factored_triplets(Factored(left[torch.from_numpy(within)], self.v))
        return replace(self, u=found.u, s=found.s, v=found.v, rows=self.rows_among(within))

    def spectrum(self, least: int, share: float, device: str) -> tuple[NDArray[np.float64], float]:
        """Return the squared singular values, descending, and the largest singular value.

        Parameters
        ----------
        least, share, device
            Not used: all singular values are known. See `DenseDelta.spectrum`.
        """
        energies: NDArray[np.float64] = self.s.square().numpy()
        return energies, float(self.s[0])

    def compare_product(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> tuple[float, float]:
        """Return the norm of a decoded delta, and the squared norm of its error.

        Parameters
        ----------
        left : float32 [r, coded rows]
            Left factor of the decoded delta, transposed.
        right : float32 [r, coded columns]
            Right factor.
        """
        decoded = Factored(torch.from_numpy(np.ascontiguousarray(left.T)), torch.from_numpy(right))
        # In float64, since nearly equal terms cancel.
        error = Factored(self.u * self.s, self.v).minus(decoded.double()).square()
        return math.sqrt(decoded.square()), error


def _nonzero_rows(vectors: Tensor) -> Tensor:
    """Return which rows hold an element other than 0: bool [m]."""
    return (vectors != 0).any(dim=1)
