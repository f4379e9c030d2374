"""TIES (arXiv 2306.01708): trim small elements, elect a sign for each weight, merge the elements that agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import (
    Combine,
    MergeMethod,
    check_number,
    check_share,
    check_word,
)
from dtscodec.merging.methods.threshold import Threshold
from dtscodec.merging.task_vectors import TaskVectors, map_chunks, sum_tensors
from dtscodec.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class Ties(MergeMethod):
    """Base + alpha * (mean or sum of the trimmed task vectors' elements that have the elected sign).

    Parameters
    ----------
    alpha : float
        Scale of the merged task vector. 1 goes with the mean; with the sum the authors use 0.3.
    keep : float
        Share of each task vector to retain, the largest by magnitude over the whole model. 1 retains all.
    combine : {"mean", "sum"}
        How to combine the elements that agree.
    """

    name: ClassVar[str] = "ties"
    alpha: float = 1.0
    keep: float = 0.2
    combine: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_share("keep", self.keep)
        check_word("combine", self.combine, ("mean", "sum"))

    @property
    def passes(self) -> int:
        """Two to find the thresholds, unless all elements are retained, and one to count signs."""
        return 1 if self.keep == 1 else 3

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine:
        """Find each task's threshold and the majority sign, and return the function that merges one tensor."""
        thresholds = [0.0] * len(inputs) if self.keep == 1 else _thresholds(inputs, self.keep, progress)
        majority = _majority_sign(inputs, thresholds, progress)

        def combine_chunks(chunks: list[Tensor]) -> Tensor:
            return merge_agreeing(trim(chunks, thresholds), majority, self.combine)

        def combine(vectors: TaskVectors) -> Tensor:
            return map_chunks(vectors.deltas, torch.float32, combine_chunks)

        return combine


def _thresholds(inputs: MergeInputs, keep: float, progress: ProgressCallback) -> list[float]:
    """Return the smallest magnitude that is retained of each task vector, over the whole model."""
    count = sum(inputs.specs[name].elements for name in inputs.task_vector_names)
    if not count:
        return [0.0] * len(inputs)
    # Of n magnitudes, k are larger than the (n - k)-th smallest.
    found = [Threshold(max(1, count - int(keep * count))) for _ in range(len(inputs))]
    for is_second in (False, True):
        if is_second:
            for threshold in found:
                threshold.begin_second_pass()
        for name in inputs.task_vector_names:
            for threshold, delta in zip(found, inputs.task_vectors(name).deltas, strict=True):
                threshold.add(delta)
            progress(inputs.nbytes(name))
    return [threshold.value() for threshold in found]


def _majority_sign(inputs: MergeInputs, thresholds: Sequence[float], progress: ProgressCallback) -> int:
    """Return the sign, -1, 0 or 1, that the sums of most weights have; it is elected where a sum is zero."""
    total = 0
    for name in inputs.task_vector_names:
        signs = map_chunks(
            inputs.task_vectors(name).deltas, torch.int8, lambda chunks: sum_tensors(trim(chunks, thresholds)).sign()
        )
        # The sign of this sum is that of the majority.
        total += int(signs.sum())
        progress(inputs.nbytes(name))
    return (total > 0) - (total < 0)


def trim(deltas: Sequence[Tensor], thresholds: Sequence[float]) -> list[Tensor]:
    """Return task vectors in which elements below each task's threshold are zero."""
    pairs = zip(deltas, thresholds, strict=True)
    return [torch.where(delta.abs() < threshold, 0, delta) for delta, threshold in pairs]


def merge_agreeing(deltas: Sequence[Tensor], majority: int, combine: Literal["mean", "sum"]) -> Tensor:
    """Elect a sign for each weight, and return the mean or sum of the task vectors that have it.

    Parameters
    ----------
    deltas : sequence of float32 tensors
        Trimmed task vectors, of one shape.
    majority : int
        The sign elected for weights with task vectors that cancel; 0 to leave these weights unchanged.
    combine : {"mean", "sum"}
        The mean is over the task vectors that agree.

    Returns
    -------
    float32 tensor

    Examples
    --------
    >>> merge_agreeing([torch.tensor([3.0, 1.0]), torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 0.0])], 1, "mean")
    tensor([2., 1.])
    """
    # Elect: the sign of the larger total magnitude, which is the sign of the sum.
    signs = sum_tensors(deltas).sign()
    signs[signs == 0] = majority
    # Merge: only elements of the elected sign count.
    total, count = torch.zeros_like(signs), torch.zeros_like(signs)
    for delta in deltas:
        agrees = (delta * signs > 0).double()
        total += delta * agrees
        count += agrees
    return (total / count.clamp(min=1) if combine == "mean" else total).float()
