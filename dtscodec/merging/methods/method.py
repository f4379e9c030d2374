"""What methods have in common: from the moves of all tasks to one move."""

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeAlias

from torch import Tensor

from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.task_vectors import Moves

Fuse: TypeAlias = Callable[[Moves], Tensor]
"""Moves of a tensor -> the merged one, float32, which alpha is to multiply."""
Told: TypeAlias = Callable[[int], None]
"""Is told the bytes of fine-tunes that were read."""


class TaskMethod(Protocol):
    """A method that moves the base: base + alpha * merged move.

    Attributes
    ----------
    name : str
        For users.
    passes : int
        How often `prepare` reads every tensor.
    edges : bool
        Whether it asks for the edges of rounding noise.
    """

    name: ClassVar[str]
    edges: ClassVar[bool]

    @property
    def passes(self) -> int:
        """How often `prepare` reads every tensor."""

    @property
    def alpha(self) -> float:
        """What merged moves are multiplied by."""

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """Look at all tensors, if that is needed, and say how one is merged."""
