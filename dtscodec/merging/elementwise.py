"""Sums, means and other elementwise functions of tensors of one shape, in chunks that fit caches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dtscodec.linalg.chunks import cache_sized
from dtscodec.merging.task_vectors import TaskVectors


def map_chunks(tensors: Sequence[Tensor], dtype: torch.dtype, function: Callable[[list[Tensor]], Tensor]) -> Tensor:
    """Apply an elementwise function to tensors of one shape, chunk by chunk.

    Parameters
    ----------
    tensors : sequence of tensors
        All of one shape and on one device.
    dtype : torch.dtype
        Of the result; chunks are converted to it.
    function : callable
        Takes a one-dimensional chunk of each tensor; returns the same chunk of the result.

    Returns
    -------
    tensor
        Of the tensors' shape.
    """
    flat = [tensor.reshape(-1) for tensor in tensors]
    result = torch.empty(flat[0].shape, dtype=dtype, device=flat[0].device)
    for part in cache_sized(len(result)):
        result[part] = function([tensor[part] for tensor in flat])
    return result.reshape(tensors[0].shape)


def sum_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape: float64."""
    total = tensors[0].to(torch.float64, copy=True)
    for tensor in tensors[1:]:
        total += tensor
    return total


def mean_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape: float64.

    >>> mean_tensors([torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])]).tolist()
    [1.5, 3.0]
    """
    return sum_tensors(tensors) / len(tensors)


def sum_task_vectors(vectors: TaskVectors) -> Tensor:
    """Return the sum of the task vectors, accumulated in float64: float32."""
    return map_chunks(vectors.deltas, torch.float32, sum_tensors)


def mean_task_vector(vectors: TaskVectors) -> Tensor:
    """Return the mean of the task vectors: float32."""
    return sum_task_vectors(vectors) / len(vectors.deltas)
