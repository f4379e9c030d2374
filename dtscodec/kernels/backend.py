"""The interface of backends: arithmetic on packed factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

from dtscodec.kernels.packed import PackedFactors

Rows: TypeAlias = "slice | Tensor"
"""Rows of a batch: a slice, or their indices, int64 [count]."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The rows of a batch that belong to one task, and that task's factors.

    Parameters
    ----------
    factors : PackedFactors
        The factors of the task's delta D.
    rows : slice or int64 [count]
        The rows of the batch.
    transposed : bool
        Whether the layer uses D^T in place of D.
    """

    factors: PackedFactors
    rows: Rows
    transposed: bool = False


class Backend(Protocol):
    """Arithmetic on packed factors of a delta D = (u s) v^T, of a block of m rows and n columns.

    All backends accumulate in float32 (float64 if the result is float64), and round once to the result's dtype. D is
    zero in rows and columns that are not coded.
    """

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor, only_coded: bool = False) -> None:
        """Write W = base + D, within the spec's level B.

        Parameters
        ----------
        base : float [m, n]
            The base, float16, bfloat16, float32 or float64, with any strides. Elements that are not coded are the
            base's, converted: exactly its bits if dtypes are equal.
        factors : PackedFactors
            The factors of D.
        out : float [m, n]
            The weights W, with any strides. May be `base` itself, but must not overlap it otherwise.
        only_coded : bool
            Whether only coded rows and columns are written.
        """

    def apply(self, x: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add x D^T to y, each row with the factors of its share. Rows in no share do not change.

        Parameters
        ----------
        x : float [b, n]
            Inputs of a layer.
        shares : sequence of Share
            The tasks of the batch, with disjoint rows.
        y : float [b, m]
            Outputs of the layer; modified in place.
        """

    def gather(self, ids: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add rows of D to y, as an embedding does: y[i] += D[ids[i]], with the factors of i's share.

        Parameters
        ----------
        ids : int64 [b]
            Rows of D.
        shares : sequence of Share
            The tasks of the batch, with disjoint rows.
        y : float [b, n]
            Outputs of the embedding; modified in place.
        """
