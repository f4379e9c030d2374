"""A matrix that is known by two thin factors, and never multiplied out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dtscodec.format.blocks import CodedDelta
from dtscodec.linalg.chunks import squared_norm


@dataclass(frozen=True, slots=True)
class Factored:
    """The matrix `left @ right`.

    Parameters
    ----------
    left : float [m, r]
    right : float [r, n]
        Of the same dtype.

    Raises
    ------
    ValueError
        They cannot be multiplied.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise ValueError(f"expected factors [m, r] and [r, n], got {[*self.left.shape]} and {[*self.right.shape]}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def T(self) -> "Factored":
        """Its transpose."""
        return Factored(self.right.T, self.left.T)

    def double(self) -> "Factored":
        """The same in float64."""
        return Factored(self.left.double(), self.right.double())

    def rows(self, chosen: Tensor) -> "Factored":
        """Some rows of it: bool mask [m]."""
        return Factored(self.left[chosen], self.right)

    def minus(self, other: "Factored") -> "Factored":
        """Its difference from another one of the same shape, as factors of both ranks together."""
        return Factored(torch.cat([self.left, -other.left], 1), torch.cat([self.right, other.right]))

    def square(self) -> float:
        """Squared Frobenius norm, by Gram matrices of the factors in float64."""
        wide = self.double()
        return max(0.0, float(((wide.left.T @ wide.left) * (wide.right @ wide.right.T)).sum()))


def factored(coded: CodedDelta) -> Factored:
    """What a low-rank block adds to its coded rows and columns, in the dtype that it was dequantized to."""
    assert coded.right is not None
    return Factored(torch.from_numpy(np.ascontiguousarray(coded.left)), torch.from_numpy(coded.right))


def stack_blocks(blocks: Sequence[tuple[int, int, CodedDelta]], shape: tuple[int, int], dtype: torch.dtype) -> Factored:
    """Return the deltas of low-rank blocks of one tensor as one factored matrix.

    Components of a block are zero outside of its coded rows and columns.

    Parameters
    ----------
    blocks : sequence of (int, int, CodedDelta)
        First row, height and delta of each block.
    shape : (int, int)
        Shape [m, n] of the whole matrix.
    dtype : torch.dtype
        Dtype of the result.

    Returns
    -------
    Factored
        [m, r] and [r, n], r being the sum of all blocks' ranks.
    """
    rank = sum(coded.left.shape[1] for _, _, coded in blocks)
    left, right = torch.zeros(shape[0], rank, dtype=dtype), torch.zeros(rank, shape[1], dtype=dtype)
    begin = 0
    for first, height, coded in blocks:
        assert coded.right is not None
        end = begin + coded.left.shape[1]
        rows, columns = (torch.from_numpy(index.ravel()) for index in coded.where(height, shape[1]))
        left[first + rows, begin:end] = torch.from_numpy(coded.left).to(dtype)
        right[begin:end, columns] = torch.from_numpy(coded.right).to(dtype)
        begin = end
    return Factored(left, right)


def delta_square(coded: CodedDelta) -> float:
    """Return the squared Frobenius norm of what a block adds, without forming a product of factors."""
    return squared_norm(torch.from_numpy(coded.left)) if coded.right is None else factored(coded).square()
