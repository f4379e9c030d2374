"""The average of fine-tunes: the base with the least squared distance to them. It needs no pre-trained model."""

from dataclasses import dataclass
from typing import ClassVar

from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class Average(MergeMethod):
    """The mean of the fine-tunes' weights. It has no options."""

    name: ClassVar[str] = "average"
    needs_base: ClassVar[bool] = False
    min_fine_tunes: ClassVar[int] = 2

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> None:
        """Return None: the result is the mean of the weights, not the base plus a task vector."""
        return None
