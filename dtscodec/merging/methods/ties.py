"""TIES (arXiv 2306.01708): trim what is small, elect a sign for each weight, merge what agrees with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from dtscodec.merging.matrices import in_pieces, sum_of
from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.methods.method import Fuse, Told
from dtscodec.merging.methods.option_checks import check_number, check_share, check_word
from dtscodec.merging.methods.threshold import Threshold
from dtscodec.merging.task_vectors import Moves

Combine = Literal["mean", "sum"]


@dataclass(frozen=True, slots=True)
class Ties:
    """Base + alpha * (mean or sum of the largest moves of each task that have the elected sign).

    Parameters
    ----------
    alpha : float
        1 goes with the mean; with the sum its authors use 0.3.
    keep : float
        Share of each task's moves that stays, the largest of the whole model; 1 keeps all.
    combine : {"mean", "sum"}
        Of those that agree.
    """

    name: ClassVar[str] = "ties"
    edges: ClassVar[bool] = False
    alpha: float = 1.0
    keep: float = 0.2
    combine: Combine = "mean"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_share("keep", self.keep)
        check_word("combine", self.combine, get_args(Combine))

    @property
    def passes(self) -> int:
        """Two for the thresholds, one for the sign that most weights have."""
        return 1 if self.keep == 1 else 3

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """Find each task's threshold, and the sign that weights without one take."""
        thresholds = [0.0] * len(tasks) if self.keep == 1 else _thresholds(tasks, self.keep, told)
        majority = 0
        for name in tasks.moved:
            signs = in_pieces(
                tasks.moves(name).deltas, torch.int8, lambda pieces: sum_of(trimmed(pieces, thresholds)).sign()
            )
            majority += int(signs.sum())
            told(_nbytes(tasks, name))
        sign = (majority > 0) - (majority < 0)

        def fuse(moves: Moves) -> Tensor:
            merge = lambda pieces: merge_agreeing(trimmed(pieces, thresholds), sign, self.combine)  # noqa: E731
            return in_pieces(moves.deltas, torch.float32, merge)

        return fuse


def _thresholds(tasks: Tasks, keep: float, told: Told) -> list[float]:
    """The smallest magnitude that each task keeps."""
    count = sum(tasks.specs[name].elements for name in tasks.moved)
    if not count:
        return [0.0] * len(tasks)
    found = [Threshold(max(1, count - int(keep * count))) for _ in range(len(tasks))]
    for last in (False, True):
        for name in tasks.moved:
            for threshold, delta in zip(found, tasks.moves(name).deltas, strict=True):
                threshold.add(delta)
            told(_nbytes(tasks, name))
        if not last:
            for threshold in found:
                threshold.turn()
    return [threshold.value() for threshold in found]


def _nbytes(tasks: Tasks, name: str) -> int:
    return len(tasks) * tasks.specs[name].nbytes


def trimmed(deltas: Sequence[Tensor], thresholds: Sequence[float]) -> list[Tensor]:
    """Moves without what is smaller than each task's threshold."""
    pairs = zip(deltas, thresholds, strict=True)
    return [torch.where(delta.abs() < threshold, 0, delta) for delta, threshold in pairs]


def merge_agreeing(deltas: Sequence[Tensor], majority: int, combine: Combine) -> Tensor:
    """Mean or sum, for each weight, of the moves with the sign of their sum; where it has none, with another sign.

    Parameters
    ----------
    deltas : sequence of float32 tensors
        Trimmed; those of one shape.
    majority : int
        The sign for weights whose moves cancel; where it is 0 too they do not move.
    combine : {"mean", "sum"}

    >>> merge_agreeing([torch.tensor([3.0, 1.0]), torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 0.0])], 1, "mean")
    tensor([2., 1.])
    """
    signs = sum_of(deltas).sign()
    signs[signs == 0] = majority
    total, count = torch.zeros_like(signs), torch.zeros_like(signs)
    for delta in deltas:
        agrees = (delta * signs > 0).double()
        total += delta * agrees
        count += agrees
    return (total / count.clamp(min=1) if combine == "mean" else total).float()
