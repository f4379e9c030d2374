"""Elements <-> the same in ascending order of their contexts, stable (spec section 15.4)."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.residual.contexts import CONTEXTS
from dtscodec.format.residual.integers import Integers

_PIECE: Final = 2**16
"""Elements that are sorted together: as many as a processor's cache holds, which is three times as fast as more."""


class ContextOrder:
    """The order of elements by their contexts: that of their positions within each.

    Parameters
    ----------
    contexts : uint8 [n]
        The contexts of the elements, in their own order.

    Attributes
    ----------
    counts : list of int
        How many elements have each context that occurs, contexts ascending.
    """

    def __init__(self, contexts: NDArray[np.uint8]) -> None:
        self._contexts = contexts
        self._parts = [slice(begin, begin + _PIECE) for begin in range(0, len(contexts), _PIECE)]
        by_piece = np.array([np.bincount(contexts[part], minlength=CONTEXTS) for part in self._parts])
        # How many elements of each piece have each context that occurs: int [pieces, contexts].
        self._by_piece: NDArray[np.intp] = by_piece[:, by_piece.any(axis=0)]
        self.counts: list[int] = self._by_piece.sum(axis=0).tolist()

    def sort(self, values: Integers) -> list[Integers]:
        """Return the elements of each context that occurs, contexts ascending; the inverse of `unsort`.

        Parameters
        ----------
        values : integers [n]
            The elements in their own order.
        """
        pieces = [values[part][self._sorting(part)] for part in self._parts]
        ends = self._by_piece.cumsum(axis=1)
        begins, ends = (ends - self._by_piece).T.tolist(), ends.T.tolist()
        spans = (zip(pieces, *both, strict=True) for both in zip(begins, ends, strict=True))
        return [np.concatenate([piece[begin:end] for piece, begin, end in span]) for span in spans]

    def unsort(self, buckets: list[Integers], dtype: np.dtype[Any]) -> Integers:
        """Return elements in their own order; the inverse of `sort`.

        Parameters
        ----------
        buckets : list of integers
            The elements of each context that occurs, contexts ascending.
        dtype : numpy dtype
            Dtype of the elements.
        """
        ends = self._by_piece.cumsum(axis=0)
        begins, ends = (ends - self._by_piece).tolist(), ends.tolist()
        result = np.empty(len(self._contexts), dtype)
        for part, *both in zip(self._parts, begins, ends, strict=True):
            spans = zip(buckets, *both, strict=True)
            result[part][self._sorting(part)] = np.concatenate([bucket[begin:end] for bucket, begin, end in spans])
        return result

    def _sorting(self, part: slice) -> NDArray[np.intp]:
        return np.argsort(self._contexts[part], kind="stable")
