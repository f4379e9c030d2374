"""The delta of a coded block, dequantized: dense, or as two factors."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.blocks.subset import Mask

Floats: TypeAlias = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class CodedDelta:
    """What a coded block adds to its base.

    Parameters
    ----------
    rows, cols : bool mask or None
        Coded rows and columns; None for all.
    left : float [coded rows, r]
        U S of a low-rank block; the delta itself [coded rows, coded columns] without `right`.
    right : float [r, coded columns] or None
        V^T of a low-rank block; None for other kinds.
    """

    rows: Mask | None
    cols: Mask | None
    left: Floats
    right: Floats | None

    def dense(self) -> Floats:
        """Return the delta of the coded rows and columns."""
        with np.errstate(over="ignore", invalid="ignore"):  # A pack may hold numbers whose product overflows.
            return self.left if self.right is None else self.left @ self.right

    def place(self, height: int, columns: int) -> Floats:
        """Return the delta of all rows and columns of the block, zero where nothing is coded."""
        if self.rows is None and self.cols is None:
            return self.dense()
        whole = np.zeros((height, columns), self.left.dtype)
        whole[self.where(height, columns)] = self.dense()
        return whole

    def where(self, height: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the index of the coded rows and columns of a [height, columns] array."""
        rows = np.arange(height) if self.rows is None else np.flatnonzero(self.rows)
        cols = np.arange(columns) if self.cols is None else np.flatnonzero(self.cols)
        return np.ix_(rows, cols)  # type: ignore[return-value]
