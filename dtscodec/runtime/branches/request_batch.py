"""The requests of a batch, grouped by the task that they ask for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy
from dtscodec.kernels.backend import Rows
from dtscodec.runtime.model.slots import Slot
from dtscodec.runtime.resident_pack import ResidentPack

ONE_FOR_ALL = Remedy("give all requests the same task, or use Switcher")
AS_MANY = Remedy(
    "name as many tasks as the model has rows (beams and sequences to return are rows, but not in an encoder), or one"
    " for all"
)


@dataclass(frozen=True, slots=True, eq=False)
class TaskRequests:
    """A task and the requests that ask for it.

    Parameters
    ----------
    resident : ResidentPack
        The task's pack.
    requests : tuple of int or None
        Their indices in the batch, ascending; None for all.
    """

    resident: ResidentPack
    requests: tuple[int, ...] | None


class TaskSelector(Protocol):
    """Chooses the tasks of each layer while a model runs."""

    def select(self, module: nn.Module, x: Tensor) -> "RequestBatch":
        """Return the requests by task for one call of a layer.

        Parameters
        ----------
        module : nn.Module
            The layer.
        x : Tensor [rows, ...]
            Its input.
        """

    def may_change(self, slot: Slot) -> bool:
        """Return whether a task that may be chosen changes a parameter.

        Parameters
        ----------
        slot : Slot
            The parameter.
        """


@dataclass(slots=True, eq=False)
class RequestBatch:
    """A batch of requests that name their tasks. As a `TaskSelector` it chooses the same tasks in every layer.

    It caches rows and widths of outputs, so it belongs to one run of a model in one thread.

    Parameters
    ----------
    groups : tuple of TaskRequests
        One for each task that is asked for. Requests in no group get the base.
    size : int or None
        Number of requests; None if all ask for the same task, however many they are.

    Attributes
    ----------
    widths : dict of int to int
        Output features of each request's head, where heads differ in width.
    """

    groups: tuple[TaskRequests, ...]
    size: int | None
    widths: dict[int, int] = field(default_factory=dict, init=False)
    _rows: dict[tuple[object, ...], Rows] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, residents: Sequence[ResidentPack | None]) -> "RequestBatch":
        """Group requests by task.

        Parameters
        ----------
        residents : sequence of ResidentPack or None
            The task of each request; None is the base.
        """
        requests: dict[ResidentPack, list[int]] = {}
        for request, resident in enumerate(residents):
            # None stands for the base, which needs no branch.
            if resident is not None:
                requests.setdefault(resident, []).append(request)
        return cls(tuple(TaskRequests(task, tuple(found)) for task, found in requests.items()), len(residents))

    def select(self, module: nn.Module, x: Tensor) -> "RequestBatch":
        """Return this batch, whatever the layer."""
        return self

    def may_change(self, slot: Slot) -> bool:
        """Return whether a task of this batch changes a parameter."""
        return any(slot in group.resident.changes for group in self.groups)

    def of_one_task(self) -> "RequestBatch | None":
        """Return a batch of any number of rows for the task of all requests, or None if they ask for several."""
        if not self.groups or (len(self.groups) == 1 and self.groups[0].requests is None):
            return self
        is_same = len(self.groups) == 1 and len(self.groups[0].requests or ()) == self.size
        return RequestBatch((TaskRequests(self.groups[0].resident, None),), None) if is_same else None

    def outputs(self, output: Tensor) -> list[Tensor]:
        """Split a model's output by request.

        Where heads differ in width, the output is as wide as the widest. The features that a request's own head does
        not have are minus infinity; they are cut off here.

        Parameters
        ----------
        output : float [requests, ..., width]
            The model's output.

        Returns
        -------
        list of Tensor
            For each request a view of shape [..., own width].
        """
        # Cut off the padding of narrower heads.
        return [row[..., : self.widths.get(request, row.shape[-1])] for request, row in enumerate(output)]

    def note_widths(self, others: int, own: Mapping[TaskRequests, int]) -> None:
        """Record the widths of a layer's outputs for `outputs`, if they differ.

        Parameters
        ----------
        others : int
            Width for requests in no group of `own`.
        own : mapping of TaskRequests to int
            Width for the requests of each group.
        """
        if any(width != others for width in own.values()):
            # The layer's own width, except for tasks that use another head.
            self.widths = dict.fromkeys(range(self.size or 0), others)
            for group, width in own.items():
                self.widths |= dict.fromkeys(group.requests or (), width)

    def rows(self, group: TaskRequests, leading: Sequence[int], slot: Slot) -> Rows:
        """Return the rows of a group's requests in a layer's input that is reshaped to [prod(leading), ...].

        Parameters
        ----------
        group : TaskRequests
            A group of this batch.
        leading : sequence of int
            All dimensions of the input but those of the features; the first is that of the requests.
        slot : Slot
            The layer's parameter, for its device and for messages.

        Raises
        ------
        ModelMismatchError
            The tensor's first dimension is not that of the requests.
        """
        if group.requests is None:
            return slice(None)
        if not leading or leading[0] != self.size:
            problem = (
                f"{slot.name}: expected a first dimension of {self.size} requests, got an input of {list(leading)}"
            )
            raise ModelMismatchError(problem, ONE_FOR_ALL if self.size in leading else AS_MANY)
        # Rows that belong to one request, such as its tokens.
        each = math.prod(leading[1:])
        device = slot.device
        # Layers with equally many rows per request share the index.
        key = (group.requests, each, device)
        if key not in self._rows:
            self._rows[key] = _expand_rows(group.requests, each, device)
        return self._rows[key]


def _expand_rows(requests: Sequence[int], each: int, device: torch.device) -> Rows:
    """Return the rows of requests that have `each` consecutive rows: a slice if the requests are consecutive."""
    # Indexing by a slice makes no copy.
    if requests[-1] - requests[0] == len(requests) - 1:
        return slice(requests[0] * each, (requests[-1] + 1) * each)
    first = torch.tensor(requests, device=device) * each
    return (first[:, None] + torch.arange(each, device=device)).flatten()
