"""What a backend does with packed factors, and which one serves a device."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dtscodec.kernels.packed import PackedFactors

Rows: TypeAlias = "slice | Tensor"
"""Rows of a matrix: a slice, or int64 [count]."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The rows of a batch that belong to one task, and its factors; transposed if D is to be read as D^T."""

    factors: PackedFactors
    rows: Rows
    transposed: bool = False


class Backend(Protocol):
    """Arithmetic on packed factors: delta D = (u s) v^T of a block of m rows and n columns.

    All accumulate in float32 (float64 where the result is float64) and round once to the dtype of the result. Rows and
    columns that are not coded have a delta of zero.
    """

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor, only_coded: bool = False) -> None:
        """Write W = base + D, within the spec's level B.

        Parameters
        ----------
        base : float [m, n]
            Of any strides, and any of the dtypes float16, bfloat16, float32 and float64. Where nothing is coded the
            result is the base, converted: exactly the base's bits if dtypes are equal.
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


def backend_for(device: torch.device) -> Backend:
    """The fastest backend that is here for a device."""
    return _backend(device)


@functools.cache
def _backend(device: torch.device) -> Backend:
    if device.type == "cpu":
        from dtscodec.kernels.cpu import Cpu

        return Cpu()
    if device.type == "cuda" and _triton_serves(device):
        from dtscodec.kernels.triton.backend import Triton

        return Triton()
    from dtscodec.kernels.reference import Reference

    return Reference()


def _triton_serves(device: torch.device) -> bool:
    """Whether our Triton kernels run: on NVIDIA's Ampere and newer, by a Triton that has the precision they need."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton
    except ImportError:
        return False
    return tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6)
