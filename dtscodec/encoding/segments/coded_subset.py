"""The rows and columns of a delta that are coded: what dense and factored segments share."""

import numpy as np
from torch import Tensor

from dtscodec.format.blocks import BaseRows, Mask, join_masks


class CodedSubset:
    """Base of values that hold some rows and columns of a delta.

    Attributes
    ----------
    rows, cols : bool mask or None
        Coded rows and columns; None for all of them.
    height : int
        Rows of the delta.
    base : BaseRows or None
        The base rows that it is added to; None for a delta from zero.
    """

    __slots__ = ()

    rows: Mask | None
    cols: Mask | None
    height: int
    base: BaseRows | None

    @property
    def subset(self) -> tuple[int, BaseRows | None, int | None, int | None]:
        """Height, base, and the numbers of coded rows and columns, as blocks have them."""
        rows, cols = (None if mask is None else int(mask.sum()) for mask in (self.rows, self.cols))
        return self.height, self.base, rows, cols

    @property
    def bitmaps(self) -> bytes:
        """The bitmaps of coded rows and columns."""
        return join_masks(self.rows, self.cols)

    def rows_among(self, within: Mask) -> Mask:
        """Return the mask of all rows from one of the coded rows: bool [coded rows] -> bool [height]."""
        rows = np.zeros(self.height, np.bool_)
        rows[np.flatnonzero(self.rows)[within] if self.rows is not None else within] = True
        return rows


def largest(energies: Tensor, count: int) -> Mask:
    """Return the mask of the `count` largest of some energies, the first ones on ties."""
    within = np.zeros(len(energies), np.bool_)
    within[(-energies).argsort(stable=True)[:count].numpy()] = True
    return within
