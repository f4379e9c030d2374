"""The interface of backends: arithmetic on packed factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

from dtscodec.kernels.packed import PackedFactors

Rows: TypeAlias = "slice | Tensor"
"""Rows of a matrix: a slice, or int64 [count]."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The rows of a batch that belong to one task, and that task's factors.

    Parameters
    ----------
    factors : PackedFactors
    rows : slice or int64 [count]
    transposed : bool
        Whether D is used as D^T.
    """

    factors: PackedFactors
    rows: Rows
    transposed: bool = False


class Backend(Protocol):
    """Arithmetic on packed factors: delta D = (u s) v^T of a block of m rows and n columns.

    All backends accumulate in float32 (float64 if the result is float64), and round once to the result's dtype. Rows
    and columns that are not coded have a delta of zero.
    """

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor, only_coded: bool = False) -> None:
        """Write W = base + D, within the spec's level B.

        Parameters
        ----------
        base : float [m, n]
            Of any strides; float16, bfloat16, float32 or float64. Elements that are not coded are the base's,
            converted: exactly its bits if dtypes are equal.
        factors : PackedFactors
        out : float [m, n]
            Of any strides. It may be `base` itself, but not overlap it otherwise.
        only_coded : bool
            Leave rows and columns that are not coded as they are.
        """

    def apply(self, x: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add x D^T to y, each row by the factors of its share; rows in no share stay as they are.

        Parameters
        ----------
        x : float [b, n]
        shares : sequence of Share
            Whose rows do not overlap.
        y : float [b, m]
            Written in place.
        """

    def gather(self, ids: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add rows of D to y: y[i] += D[ids[i]], by the factors of i's share.

        Parameters
        ----------
        ids : int64 [b]
        shares : sequence of Share
        y : float [b, n]
            Written in place.
        """
