"""Task vectors: fine-tune minus base, for one tensor of every task (arXiv 2212.04089)."""

from dataclasses import dataclass

from torch import Tensor


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
        fine-tune's dtype alone explains. Empty lists where it was not asked for, or the tensor is no matrix.
    """

    name: str
    deltas: list[Tensor]
    noise_edges: list[list[float]]
