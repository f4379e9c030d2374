"""Task vectors: by how much each task moves a tensor of the base."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moves:
    """By how much each task moves a tensor of the base.

    Parameters
    ----------
    name : str
        The tensor's, in the result.
    deltas : list of float32 tensors
        One per task, of the tensor's shape.
    edges : list of list of float
        Per task and matrix of it, the singular value below which rounding alone explains what there is.
    """

    name: str
    deltas: list[Tensor]
    edges: list[list[float]]
