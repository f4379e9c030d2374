"""Task arithmetic (arXiv 2212.04089): the base plus a multiple of the sum of the tasks' moves."""

from dataclasses import dataclass
from typing import ClassVar

from dtscodec.merging.matrices import sum_moves
from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.methods.method import Fuse, Told
from dtscodec.merging.methods.option_checks import check_number


@dataclass(frozen=True, slots=True)
class TaskArithmetic:
    """Base + alpha * sum of moves.

    Parameters
    ----------
    alpha : float
        0.3 is what its authors use for eight tasks; 1 / T is the average.
    """

    name: ClassVar[str] = "task-arithmetic"
    passes: ClassVar[int] = 0
    edges: ClassVar[bool] = False
    alpha: float = 0.3

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """How a tensor's moves become one."""
        return sum_moves
