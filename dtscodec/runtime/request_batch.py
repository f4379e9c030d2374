"""Which task each request of a batch asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy
from dtscodec.kernels.backend import Rows
from dtscodec.runtime.resident_pack import ResidentPack
from dtscodec.runtime.slots import Slot


@dataclass(frozen=True, slots=True, eq=False)
class TaskRequests:
    """A task, and its requests in the batch; None if all are."""

    resident: ResidentPack
    requests: tuple[int, ...] | None


class TaskSelector(Protocol):
    """What decides for which tasks a model runs."""

    def select(self, module: nn.Module, x: Tensor) -> "RequestBatch":
        """The tasks of a layer with this input."""


@dataclass(slots=True, eq=False)
class RequestBatch:
    """The tasks of a batch while a model runs.

    Parameters
    ----------
    groups : tuple of TaskRequests
        Every task that is asked for, once.
    size : int or None
        Number of requests; None if all ask for the same, whatever their number.
    """

    groups: tuple[TaskRequests, ...]
    size: int | None
    widths: dict[int, int] = field(default_factory=dict)
    _tokens: dict[tuple[object, ...], Rows] = field(default_factory=dict)

    @classmethod
    def of(cls, residents: Sequence[ResidentPack | None]) -> "RequestBatch":
        """The batch of requests that ask for these tasks, or for none."""
        requests: dict[ResidentPack, list[int]] = {}
        for request, resident in enumerate(residents):
            if resident is not None:
                requests.setdefault(resident, []).append(request)
        return cls(tuple(TaskRequests(task, tuple(found)) for task, found in requests.items()), len(residents))

    def select(self, module: nn.Module, x: Tensor) -> "RequestBatch":
        """The tasks of a layer: the same in all of them."""
        return self

    def outputs(self, output: Tensor) -> list[Tensor]:
        """The output of each request, [size, ..., width] -> one [..., own width] each.

        Where tasks have heads of different widths, a model's output is as wide as the widest, and what a task does not
        have is minus infinity.
        """
        return [row[..., : self.widths.get(request, row.shape[-1])] for request, row in enumerate(output)]

    def note_widths(self, others: int, own: Mapping[TaskRequests, int]) -> None:
        """Remember how wide the outputs of a layer are, where that differs: of some groups, and of all others."""
        if any(width != others for width in own.values()):
            self.widths = dict.fromkeys(range(self.size or 0), others)
            for group, width in own.items():
                self.widths |= dict.fromkeys(group.requests or (), width)

    def rows(self, group: TaskRequests, leading: Sequence[int], slot: Slot) -> Rows:
        """The rows of a group's requests in a tensor [*leading, ...] that is seen as a matrix, for a layer with a slot.

        Raises
        ------
        ModelMismatchError
            The tensor's first dimension is not that of the requests.
        """
        if group.requests is None:
            return slice(None)
        if not leading or leading[0] != self.size:
            raise ModelMismatchError(
                f"{slot.name}: expected a first dimension of {self.size} requests, got an input of {list(leading)}",
                Remedy(
                    "name as many tasks as the model has rows (beams and sequences to return are rows), or one for all"
                ),
            )
        each = 1
        for length in leading[1:]:
            each *= length
        device = slot.device
        key = (group.requests, each, device)
        if key not in self._tokens:
            self._tokens[key] = _spread(group.requests, each, device)
        return self._tokens[key]


def _spread(requests: Sequence[int], each: int, device: torch.device) -> Rows:
    """Rows of requests that have `each` rows; a slice if they lie together."""
    if requests[-1] - requests[0] == len(requests) - 1:
        return slice(requests[0] * each, (requests[-1] + 1) * each)
    first = torch.tensor(requests, device=device) * each
    return (first[:, None] + torch.arange(each, device=device)).flatten()
