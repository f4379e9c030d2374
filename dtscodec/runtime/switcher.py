"""A model that holds one task at a time, and changes between them in place."""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.open_inputs import as_base
from dtscodec.errors import ModelMismatchError, TaskError
from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.runtime.resident_pack import ResidentPack, load_resident
from dtscodec.runtime.running_base import RunningBase, bytes_of
from dtscodec.runtime.slots import Slot, slots_of
from dtscodec.runtime.tasks import check_new_task, task_named
from dtscodec.runtime.write_slot import writable, write_slot

NOTHING = ResidentPack({}, {})


class Switcher:
    """Switches a model between its base and the fine-tunes that packs stand for.

    Parameters are written in place: optimizers, compiled functions and tied weights keep what they refer to. Beside the
    model it keeps the packs, still packed, and the base's version of every tensor that some pack changes. Methods may
    be called from any thread, but no model should run while it is written.

    Parameters
    ----------
    model : nn.Module
        It holds the base's weights.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the packs were made against. By default the model's own
        weights are the base; they are checked.
    packs : mapping
        Packs by task, as for `add`.

    Raises
    ------
    ModelMismatchError, BaseMismatchError, FormatError, TaskError
        As for `add`.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> model = torch.nn.Linear(64, 64)
    >>> fine = {name: tensor + torch.ones(64) for name, tensor in model.state_dict().items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = dtscodec.encode(model.state_dict(), fine, f"{folder}/pack").path
    ...     switcher = dtscodec.Switcher(model, packs={"one": path})
    >>> before = model.weight[0, 0].item()
    >>> switcher.activate("one")
    >>> round(model.weight[0, 0].item() - before, 2)
    1.0
    >>> switcher.deactivate()
    >>> model.weight[0, 0].item() == before
    True
    """

    def __init__(
        self,
        model: nn.Module,
        base: "Source | Base | None" = None,
        packs: Mapping[str, PackSource] = MappingProxyType({}),
    ) -> None:
        self._lock = threading.RLock()
        self._slots = slots_of(model)
        self._devices = {slot: slot.device for slot in self._slots.values()}
        self._tasks: dict[str, ResidentPack] = {}
        self._originals: dict[Slot, Tensor] = {}
        self._active: str | None = None
        self._closed = False
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._base = RunningBase(stack.enter_context(as_base(base, whole=True)) if base is not None else None)
            for task, pack in packs.items():
                self.add(task, pack)
            self._stack = stack.pop_all()

    @property
    def active(self) -> str | None:
        """The task that the model holds; None for the base."""
        return self._active

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it can activate."""
        return tuple(self._tasks)

    def memory(self) -> dict[str, int]:
        """Bytes in memory of each task's pack."""
        with self._lock:
            return {task: resident.nbytes for task, resident in self._tasks.items()}

    def add(self, task: str, pack: PackSource) -> None:
        """Add a task. The pack is read whole, checked, and may be closed or deleted afterwards.

        Raises
        ------
        ModelMismatchError
            The pack does not fit the model.
        BaseMismatchError
            The model, or `base`, is not the base that the pack was made against.
        FormatError
            The pack is damaged.
        TaskError
            There is a task of that name.
        """
        with self._lock:
            check_new_task(task, self._tasks)
            if self._closed:
                raise ModelMismatchError("expected a Switcher that is open, got one that was closed; make a new one")
            with as_pack(pack, whole=True) as opened:
                resident = load_resident(opened, self._slots, self._base)
            with torch.inference_mode(False):
                for slot in resident.changes:
                    self._base.keep(resident.bases, resident.base_names(slot), slot.device)
                    self._keep_original(slot)
            self._tasks[task] = resident

    def remove(self, task: str) -> None:
        """Remove a task that is not active, and free its memory. What is kept of the base stays.

        Raises
        ------
        TaskError
            There is none of that name, or it is active.
        """
        with self._lock:
            self._resident(task)
            if task == self._active:
                raise TaskError(f"{task!r}: expected a task that is not active; activate another one, or deactivate()")
            del self._tasks[task]

    def activate(self, task: str) -> None:
        """Write the weights of a task into the model; if that fails in the middle, the model stays as it was.

        Raises
        ------
        TaskError
            There is none of that name.
        ModelMismatchError
            Tensors of the model were replaced meanwhile.
        """
        with self._lock:
            self._switch(self._resident(task))
            self._active = task

    def deactivate(self) -> None:
        """Write the model's own weights back, bit for bit.

        Raises
        ------
        ModelMismatchError
            Tensors of the model were replaced meanwhile.
        """
        with self._lock:
            self._switch(NOTHING)
            self._active = None

    def close(self) -> None:
        """Let go of the base, if it was opened for this; no task can be added any more. The model stays as it is."""
        self._closed = True
        self._stack.close()

    def _resident(self, task: str | None) -> ResidentPack:
        return NOTHING if task is None else task_named(task, self._tasks)

    def _keep_original(self, slot: Slot) -> None:
        if slot not in self._originals:
            kept = self._base.original(slot)
            self._originals[slot] = bytes_of(slot.tensor).clone() if kept is None else kept

    def _switch(self, new: ResidentPack) -> None:
        old = self._resident(self._active)
        slots = {**old.changes, **new.changes}
        with writable(slots):
            try:
                for slot in slots:
                    self._change(slot, old, new)
            except BaseException:
                for slot in slots:
                    self._write(slot, old, holds_base=False)
                raise

    def _change(self, slot: Slot, old: ResidentPack, new: ResidentPack) -> None:
        """Bring a slot from one task to another; where tasks change some rows only, only those are written."""
        to_write = new.coded_rows(slot) if slot in new.changes else None
        written = old.coded_rows(slot) if slot in old.changes else None
        if slot in new.changes and (to_write is None or (slot in old.changes and written is None)):
            self._write(slot, new, holds_base=False)
            return
        if slot in old.changes:
            self._restore(slot, written, to_write)
        if slot in new.changes:
            self._write(slot, new, holds_base=True)

    def _write(self, slot: Slot, resident: ResidentPack, holds_base: bool) -> None:
        """Write what a task has in a slot, or what the model had there itself."""
        if slot not in resident.changes:
            self._restore(slot, None, None)
            return
        change = resident.changes[slot]
        write_slot(
            slot, change, lambda name: self._base.read(name, resident.bases[name], self._devices[slot]), holds_base
        )

    def _restore(self, slot: Slot, written: Tensor | None, to_write: Tensor | None) -> None:
        """Bring back what the model had in a slot: in the rows that were written (None: all) and will not be again."""
        tensor, original = slot.tensor, self._original(slot)
        if written is None:
            tensor.copy_(original)
            return
        rows = written.long()
        if to_write is not None:
            stays = torch.zeros(len(tensor), dtype=torch.bool, device=tensor.device)
            stays[rows] = True
            stays[to_write.long()] = False
            rows = stays.nonzero()[:, 0]
        tensor.index_copy_(0, rows, original.index_select(0, rows))

    def _original(self, slot: Slot) -> Tensor:
        tensor = slot.tensor
        return self._originals[slot].view(tensor.dtype).view(tensor.shape)
