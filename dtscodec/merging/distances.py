"""How far each fine-tune is from candidate bases: what its pack has to say."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.linalg.chunks import cache_sized
from dtscodec.merging.methods.average import mean_of


@dataclass(frozen=True, slots=True)
class Distances:
    """Frobenius norms of a fine-tune's difference vectors, over all tensors that merge.

    Parameters
    ----------
    merged : float
        From the merged base.
    average : float
        From the average of the fine-tunes.
    pretrained : float or None
        From the pre-trained base, if it was given: the task vector.
    """

    merged: float
    average: float
    pretrained: float | None

    @property
    def ratio(self) -> float | None:
        """Of the difference vector to the task vector; None if that is not known, or zero."""
        return self.merged / self.pretrained if self.pretrained else None


class Sizes:
    """Adds up, tensor by tensor."""

    def __init__(self, tasks: int, has_base: bool) -> None:
        self._has_base = has_base
        self._squares = torch.zeros(tasks, 3, dtype=torch.float64)

    def add(self, points: list[Tensor], merged: Tensor) -> None:
        """Count a tensor.

        Parameters
        ----------
        points : list of tensors
            The fine-tunes' tensors less the pre-trained one, or these themselves if there is none.
        merged : tensor
            The merged one in the same terms.
        """
        flat = [point.reshape(-1) for point in points]
        other = merged.reshape(-1)
        for part in cache_sized(len(other)):
            self._add([point[part].double() for point in flat], other[part].double())

    def _add(self, points: list[Tensor], merged: Tensor) -> None:
        mean = mean_of(points)
        for task, point in enumerate(points):
            for at, difference in enumerate((point - merged, point - mean, point)):
                self._squares[task, at] += torch.dot(difference, difference)

    def distances(self) -> tuple[Distances, ...]:
        """Of each fine-tune."""
        norms = self._squares.sqrt().tolist()
        return tuple(Distances(merged, mean, task if self._has_base else None) for merged, mean, task in norms)
