"""Tensors as stacks of matrices, for methods that merge singular vectors, and the polar factor of a matrix."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.encoding.segments.segmented_tensor import SMALLEST_MATRIX
from dtscodec.linalg.rounding_noise import rounding_noise
from dtscodec.linalg.svd import triplets
from dtscodec.merging.task_vectors import TaskVectors, mean_task_vector

CombineMatrices: TypeAlias = Callable[[list[Tensor], list[float]], Tensor]
"""Task vectors of one matrix, float32 [m, n], and the noise edge of each -> the merged one, [m, n]."""


def matrix_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Return a tensor's shape as a stack of matrices: their number, rows and columns.

    A tensor of three dimensions is a stack of matrices, such as those of fused experts, where the encoder takes it for
    one. The result is None for tensors that are not matrices, such as biases and convolutions.

    Parameters
    ----------
    shape : sequence of int
        The tensor's shape.

    Examples
    --------
    >>> matrix_shape((4, 6)), matrix_shape((8, 64, 32)), matrix_shape((8, 3, 3)), matrix_shape((5,))
    ((1, 4, 6), (8, 64, 32), None, None)
    """
    if not math.prod(shape):
        return None
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    is_stack = len(shape) == 3 and shape[0] > 1 and min(shape[1:]) >= SMALLEST_MATRIX
    return (shape[0], shape[1], shape[2]) if is_stack else None


def noise_edges_of(stored: Tensor, delta: Tensor) -> list[float]:
    """Return the noise edge of each matrix of a delta; none if the tensor is not a matrix.

    Parameters
    ----------
    stored : tensor
        The fine-tune's tensor, in its own dtype.
    delta : float32 tensor
        Its delta, of the same shape.
    """
    shape = matrix_shape(delta.shape)
    if shape is None:
        return []
    pairs = zip(stored.reshape(shape), delta.reshape(shape), strict=True)
    return [rounding_noise(values, matrix).edge for values, matrix in pairs]


def combine_by_matrix(vectors: TaskVectors, combine: CombineMatrices) -> Tensor:
    """Merge the task vectors of a tensor matrix by matrix; those of other tensors become their mean.

    Parameters
    ----------
    vectors : TaskVectors
        Task vectors of the tensor.
    combine : callable
        Merges the task vectors of one matrix.

    Returns
    -------
    float32 tensor
        Of the tensor's shape.
    """
    shape = matrix_shape(vectors.deltas[0].shape)
    if shape is None:
        return mean_task_vector(vectors)
    # [matrices, m, n]: each matrix of a stack is merged by itself.
    stacks = [delta.reshape(shape) for delta in vectors.deltas]
    # An edge of 0 where noise edges were not computed.
    edges = [found or [0.0] * shape[0] for found in vectors.noise_edges]
    merged = [combine([s[i] for s in stacks], [edge[i] for edge in edges]).float() for i in range(shape[0])]
    return torch.stack(merged).reshape(vectors.deltas[0].shape)


def components_per_task(side: int, tasks: int) -> int:
    """Return how many components of a matrix each task gets: an equal share of the shorter side, at least one.

    Parameters
    ----------
    side : int
        The matrix's shorter side.
    tasks : int
        Number of tasks.

    Examples
    --------
    >>> components_per_task(768, 8), components_per_task(4, 8)
    (96, 1)
    """
    return max(1, side // tasks)


@dataclass(frozen=True, slots=True)
class Polar:
    """The polar factor of a matrix, and the mean of its singular values.

    Parameters
    ----------
    factor : float64 [m, n]
        U V^T: orthonormal columns if the matrix has full column rank, orthonormal rows if full row rank.
    mean : float
        Mean of the matrix's singular values above working precision; 0 if there are none.
    """

    factor: Tensor
    mean: float


def polar(matrix: Tensor) -> Polar:
    """Return the polar factor X (X^T X)^(-1/2): the nearest matrix with singular values of one.

    Directions that are zero to working precision stay zero, since the factor is not unique in them.

    Parameters
    ----------
    matrix : float [m, n]
        The matrix.

    Examples
    --------
    >>> polar(torch.tensor([[0.0, 3.0], [2.0, 0.0]])).factor.round().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    found = triplets(matrix)
    # X = U S V^T, so X (X^T X)^(-1/2) = U V^T.
    return Polar(found.u @ found.v, float(found.s.mean()) if len(found) else 0.0)
