"""Task arithmetic (arXiv 2212.04089): the base plus a multiple of the sum of the task vectors."""

from dataclasses import dataclass
from typing import ClassVar

from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import Combine, MergeMethod, check_number
from dtscodec.merging.task_vectors import sum_task_vectors
from dtscodec.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class TaskArithmetic(MergeMethod):
    """Base + alpha * sum of the task vectors.

    Parameters
    ----------
    alpha : float
        Scale of the merged task vector. The authors use 0.3 for eight tasks; 1 / T gives the average of T fine-tunes.
    """

    name: ClassVar[str] = "task-arithmetic"
    alpha: float = 0.3

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine:
        """Return the function that merges one tensor."""
        return sum_task_vectors
