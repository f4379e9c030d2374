"""Distances of fine-tunes from candidate bases: the norms of the deltas that packs must store."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.linalg.chunks import cache_sized
from dtscodec.merging.task_vectors import mean_tensors


@dataclass(frozen=True, slots=True)
class Distances:
    """Frobenius norms of a fine-tune's deltas from three bases, over all tensors that merge.

    Parameters
    ----------
    merged : float
        From the merged base.
    average : float
        From the average of the fine-tunes.
    pretrained : float or None
        From the pre-trained base: the norm of the task vector. None if the base was not given.
    """

    merged: float
    average: float
    pretrained: float | None

    @property
    def ratio(self) -> float | None:
        """Norm of the delta from the merged base, divided by that of the task vector; None if unknown or zero."""
        return self.merged / self.pretrained if self.pretrained else None


class DistanceTotals:
    """Accumulates distances tensor by tensor.

    Parameters
    ----------
    tasks : int
        Number of fine-tunes.
    has_base : bool
        True if the pre-trained base is given.
    """

    def __init__(self, tasks: int, has_base: bool) -> None:
        self._has_base = has_base
        self._squares = torch.zeros(tasks, 3, dtype=torch.float64)

    def add(self, points: list[Tensor], merged: Tensor) -> None:
        """Add one tensor.

        Parameters
        ----------
        points : list of tensors
            The task vectors; without a pre-trained base the fine-tunes' tensors themselves.
        merged : tensor
            The merged tensor, minus the pre-trained one if there is a base.
        """
        flat = [point.reshape(-1) for point in points]
        other = merged.reshape(-1)
        # float64 copies of one chunk at a time.
        for part in cache_sized(len(other)):
            self._add([point[part].double() for point in flat], other[part].double())

    def _add(self, points: list[Tensor], merged: Tensor) -> None:
        mean = mean_tensors(points)
        for task, point in enumerate(points):
            # Columns: from the merged base, from the average, from the pre-trained base.
            for at, difference in enumerate((point - merged, point - mean, point)):
                self._squares[task, at] += torch.dot(difference, difference)

    def distances(self) -> tuple[Distances, ...]:
        """Return the distances of each fine-tune, in their order."""
        norms = self._squares.sqrt().tolist()
        return tuple(Distances(merged, mean, task if self._has_base else None) for merged, mean, task in norms)
