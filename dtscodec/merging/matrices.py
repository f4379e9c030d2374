"""Tensors as matrices, and what of a matrix is more than rounding."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.encoding.segments.segment import SMALLEST_MATRIX
from dtscodec.errors import MergeError
from dtscodec.linalg.chunks import cache_sized
from dtscodec.merging.task_vectors import Moves


@dataclass(frozen=True, slots=True)
class Triplets:
    """Singular triplets: u float64 [m, k], s float64 [k] descending, v float64 [k, n]."""

    u: Tensor
    s: Tensor
    v: Tensor

    def top(self, count: int) -> "Triplets":
        """The first of them."""
        return Triplets(self.u[:, :count], self.s[:count], self.v[:count])

    def __len__(self) -> int:
        return len(self.s)


def triplets(matrix: Tensor, edge: float = 0.0) -> Triplets:
    """The singular triplets of a matrix, up to its numerical rank.

    Parameters
    ----------
    matrix : float [m, n]
    edge : float
        Singular values up to this one are noise.

    Raises
    ------
    MergeError
        LAPACK did not converge.
    """
    with lapack_errors():
        u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = numerical_rank(s, matrix.shape, edge)
    return Triplets(u[:, :rank], s[:rank], v[:rank])


def numerical_rank(s: Tensor, shape: Sequence[int], edge: float = 0.0) -> int:
    """How many of some singular values, descending, are more than rounding of float64 and than an edge."""
    if not len(s):
        return 0
    least = max(edge, float(s[0]) * max(shape) * torch.finfo(torch.float64).eps)
    return int((s > least).sum())


@contextmanager
def lapack_errors() -> Iterator[None]:
    """Failures of LAPACK as MergeError."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise MergeError(f"expected a singular value decomposition, got '{str(error).splitlines()[0]}'") from error


def matrix_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """A tensor as matrices: how many, rows, columns; None of what is no matrix, such as a bias or a convolution.

    A tensor of three dimensions is a stack of matrices (fused experts) as for the encoder.

    >>> matrix_shape((4, 6)), matrix_shape((8, 64, 32)), matrix_shape((8, 3, 3)), matrix_shape((5,))
    ((1, 4, 6), (8, 64, 32), None, None)
    """
    if not math.prod(shape):
        return None
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    is_stack = len(shape) == 3 and shape[0] > 1 and min(shape[1:]) >= SMALLEST_MATRIX
    return (shape[0], shape[1], shape[2]) if is_stack else None


FuseMatrices = Callable[[list[Tensor], list[float]], Tensor]
"""Matrices of all tasks, and the edge of each one's noise -> the merged one."""


def fuse_by_matrix(moves: Moves, fuse: FuseMatrices) -> Tensor:
    """The merged move of a tensor: matrix by matrix, and of what is no matrix the tasks' mean; float32."""
    shape = matrix_shape(moves.deltas[0].shape)
    if shape is None:
        return mean_move(moves)
    stacks = [delta.reshape(shape) for delta in moves.deltas]
    edges = [found or [0.0] * shape[0] for found in moves.edges]
    merged = [fuse([s[i] for s in stacks], [edge[i] for edge in edges]).float() for i in range(shape[0])]
    return torch.stack(merged).reshape(moves.deltas[0].shape)


def sum_moves(moves: Moves) -> Tensor:
    """The sum of the tasks' moves, added in float64: float32."""
    return in_pieces(moves.deltas, torch.float32, sum_of)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape: float64."""
    total = tensors[0].to(torch.float64, copy=True)
    for tensor in tensors[1:]:
        total += tensor
    return total


def in_pieces(tensors: Sequence[Tensor], dtype: torch.dtype, function: Callable[[list[Tensor]], Tensor]) -> Tensor:
    """What a function of single elements makes of tensors of one shape, taken in pieces that caches hold.

    Parameters
    ----------
    tensors : sequence of tensors
    dtype : torch.dtype
        Of the result; the pieces are converted by `copy_`.
    function : callable
        Pieces of the tensors -> a piece of the result.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    result = torch.empty(flat[0].shape, dtype=dtype, device=flat[0].device)
    for part in cache_sized(len(result)):
        result[part] = function([tensor[part] for tensor in flat])
    return result.reshape(tensors[0].shape)


def mean_move(moves: Moves) -> Tensor:
    """The mean of the tasks' moves: float32."""
    return sum_moves(moves) / len(moves.deltas)


def share(side: int, tasks: int) -> int:
    """Components that each of some tasks has of a matrix's shorter side; at least one.

    >>> share(768, 8), share(4, 8)
    (96, 1)
    """
    return max(1, side // tasks)
