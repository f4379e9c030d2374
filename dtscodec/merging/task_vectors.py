"""Task vectors: fine-tune minus base, for one tensor of every task (arXiv 2212.04089); their sums and means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.linalg.chunks import cache_sized


@dataclass(frozen=True, slots=True)
class TaskVectors:
    """The task vectors of one tensor.

    Parameters
    ----------
    name : str
        The tensor's name in the result.
    deltas : list of float32 tensors
        Fine-tune minus base, one per task, each of the tensor's shape.
    noise_edges : list of list of float
        Per task and per matrix of the tensor, the noise edge: the largest singular value that rounding to the
        fine-tune's dtype alone explains. Empty lists if it was not asked for, or the tensor is not a matrix.
    """

    name: str
    deltas: list[Tensor]
    noise_edges: list[list[float]]


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
    # In chunks, so that wide intermediate results stay in the cache.
    for part in cache_sized(len(result)):
        result[part] = function([tensor[part] for tensor in flat])
    return result.reshape(tensors[0].shape)


def sum_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape: float64, of their shape."""
    # A copy in any case, since it is summed up in place.
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
