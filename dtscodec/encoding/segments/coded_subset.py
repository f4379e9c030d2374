"""The rows and columns of a delta that are coded: what dense and factored deltas share."""

import numpy as np
from torch import Tensor

from dtscodec.format.blocks import BaseRows, Mask, join_masks


class CodedSubset:
    """Base of deltas of which only some rows and columns are coded.

    Attributes
    ----------
    rows, cols : bool mask or None
        Coded rows and columns; None for all of them.
    height, columns : int
        Size of the whole delta.
    base : BaseRows or None
        The base rows that it is added to; None for a new tensor, a delta from zero.
    """

    __slots__ = ()

    rows: Mask | None
    cols: Mask | None
    height: int
    columns: int
    base: BaseRows | None

    @property
    def subset(self) -> tuple[int, BaseRows | None, int | None, int | None]:
        """Height, base, and the numbers of coded rows and columns, in the order of a block's first fields."""
        rows, cols = (None if mask is None else int(mask.sum()) for mask in (self.rows, self.cols))
        return self.height, self.base, rows, cols

    @property
    def bitmaps(self) -> bytes:
        """The bitmaps of coded rows and columns."""
        return join_masks(self.rows, self.cols)

    def rows_among(self, within: Mask) -> Mask:
        """Return the mask of all rows for a mask of the coded ones: bool [coded rows] -> bool [height]."""
        rows = np.zeros(self.height, np.bool_)
        rows[np.flatnonzero(self.rows)[within] if self.rows is not None else within] = True
        return rows


def largest(energies: Tensor, count: int) -> Mask:
    """Return the mask of the `count` largest energies, the first ones on ties.

    Parameters
    ----------
    energies : float [n]
        Squared norms of rows.
    count : int
        Number of rows to select.
    """
    within = np.zeros(len(energies), np.bool_)
    # A stable sort of negated energies: ties go to the first rows.
    within[(-energies).argsort(stable=True)[:count].numpy()] = True
    return within
