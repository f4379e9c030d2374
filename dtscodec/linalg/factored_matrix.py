"""Matrices in factored form: two thin factors that are never multiplied out."""

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
        The left factor.
    right : float [r, n]
        The right factor, of the same dtype.

    Raises
    ------
    ValueError
        The shapes do not match.
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise ValueError(f"expected factors [m, r] and [r, n], got {[*self.left.shape]} and {[*self.right.shape]}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def T(self) -> "Factored":
        """The transpose."""
        return Factored(self.right.T, self.left.T)

    def double(self) -> "Factored":
        """Return the matrix in float64."""
        return Factored(self.left.double(), self.right.double())

    def rows(self, chosen: Tensor) -> "Factored":
        """Return the rows that a bool mask [m] selects."""
        return Factored(self.left[chosen], self.right)

    def minus(self, other: "Factored") -> "Factored":
        """Return the difference `self - other` of matrices of equal shape; its rank is the sum of both."""
        # L1 R1 - L2 R2 = [L1, -L2] [R1; R2].
        return Factored(torch.cat([self.left, -other.left], 1), torch.cat([self.right, other.right]))

    def square(self) -> float:
        """Return the squared Frobenius norm, from the Gram matrices of the factors in float64."""
        # ||L R||^2 = tr(R^T L^T L R) = <L^T L, R R^T>: two matrices [r, r], never the product [m, n].
        wide = self.double()
        return max(0.0, float(((wide.left.T @ wide.left) * (wide.right @ wide.right.T)).sum()))


def factored(coded: CodedDelta) -> Factored:
    """Return the delta of a low-rank block in factored form, in the dtype that it was dequantized to.

    Parameters
    ----------
    coded : CodedDelta
        Of a `lowrank` block.

    Returns
    -------
    Factored
        [coded rows, r] and [r, coded columns].
    """
    assert coded.right is not None
    return Factored(torch.from_numpy(np.ascontiguousarray(coded.left)), torch.from_numpy(coded.right))


def stack_blocks(blocks: Sequence[tuple[int, int, CodedDelta]], shape: tuple[int, int], dtype: torch.dtype) -> Factored:
    """Return the deltas of the low-rank blocks of one tensor as one factored matrix.

    Components of a block are zero outside its coded rows and columns.

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
        # A block's components take columns of `left` and rows of `right` of their own.
        end = begin + coded.left.shape[1]
        rows, columns = (torch.from_numpy(index.ravel()) for index in coded.where(height, shape[1]))
        left[first + rows, begin:end] = torch.from_numpy(coded.left).to(dtype)
        right[begin:end, columns] = torch.from_numpy(coded.right).to(dtype)
        begin = end
    return Factored(left, right)


def delta_square(coded: CodedDelta) -> float:
    """Return the squared Frobenius norm of a coded block's delta, without forming a product of factors."""
    return squared_norm(torch.from_numpy(coded.left)) if coded.right is None else factored(coded).square()
