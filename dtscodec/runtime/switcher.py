"""Switch a model between its base and fine-tunes, in place."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import MappingProxyType

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.errors import ModelMismatchError, Remedy, TaskError
from dtscodec.packs.pack import PackSource
from dtscodec.runtime.model.converted_slots import first_overlapping
from dtscodec.runtime.model.model_matching import ModelMatch
from dtscodec.runtime.model.restoring import restore_slot
from dtscodec.runtime.model.slots import Slot, bytes_of, writable, write_slot
from dtscodec.runtime.resident_pack import ResidentPack
from dtscodec.runtime.task_registry import TaskRegistry

NO_TASK = ResidentPack({}, {})
"""Stands for the base in a switch: it changes no tensor."""


class Switcher:
    """Switch a model between its base and the fine-tunes of packs.

    Parameters are written in place, so optimizers, compiled functions and tied weights stay valid. Memory is taken for
    the packs, still packed, and for the base's version of every tensor that some pack changes. Methods may be called
    from any thread, but the model must not run while it is written.

    Parameters
    ----------
    model : nn.Module
        The model, which holds the base's weights.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the packs were made against. By default the model's own
        weights are the base. They are checked either way.
    packs : mapping of str to path, bytes or Pack
        Packs by task, as for `add`.
    exact : bool
        Whether the residual layers of packs are used, so that weights are the fine-tunes' bit for bit. Switching then
        takes about as long as decoding a checkpoint. Otherwise only the fronts of packs are read.

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
        *,
        exact: bool = False,
    ) -> None:
        self._registry = TaskRegistry(
            model, base, "expected an open Switcher, got a closed one", Remedy("make a new one")
        )
        self._exact = exact
        self._originals: dict[Slot, Tensor] = {}
        self._active: str | None = None
        # Slots that may hold anything, after a failed switch that could not be undone.
        self._mixed: Mapping[Slot, object] = {}
        with ExitStack() as stack:
            # Close the base again if a pack is refused.
            stack.callback(self.close)
            for task, pack in packs.items():
                self.add(task, pack)
            stack.pop_all()

    @property
    def active(self) -> str | None:
        """The task that the model holds; None for the base.

        Raises
        ------
        ModelMismatchError
            A switch failed midway, and so did restoring the previous weights.
        """
        if self._mixed:
            problem = "the model: expected the weights of one task, got a mixture after a failed switch"
            raise ModelMismatchError(problem, Remedy("call deactivate(), or activate(), again"))
        return self._active

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that can be activated."""
        return self._registry.tasks

    def memory(self) -> dict[str, int]:
        """Return the bytes in memory of each task's pack. Saved tensors of the base are not included."""
        return self._registry.memory()

    def add(self, task: str, pack: PackSource) -> None:
        """Add a task, which does not activate it.

        Parameters
        ----------
        task : str
            A new name.
        pack : path, bytes or Pack
            The task's pack. It is read completely and may be closed or deleted afterwards.

        Raises
        ------
        ModelMismatchError
            The pack does not match the model, or the switcher was closed.
        BaseMismatchError
            The model, or `base`, is not the base that the pack was made against.
        FormatError
            The pack is damaged.
        TaskError
            There is a task of that name; or, of this pack and the active one, one has names on disk, one in memory.
        """
        self._registry.add(task, pack, self._save_originals, check_match=self._check_apart, exact=self._exact)

    def remove(self, task: str) -> None:
        """Remove a task that is not active, and free its memory. Saved tensors of the base stay in memory.

        Parameters
        ----------
        task : str
            Name of the task.

        Raises
        ------
        TaskError
            There is no task of that name, or it is active.
        """
        with self._registry.lock:
            if task == self._active:
                problem = f"{task!r}: expected a task that is not active, got the active one"
                raise TaskError(problem, Remedy("activate another task, or call deactivate()"))
            self._registry.remove(task)

    def activate(self, task: str) -> None:
        """Write the weights of a task into the model. If that fails midway, the previous weights are restored.

        If that fails, too, `active` is an error until a switch succeeds.

        Parameters
        ----------
        task : str
            Name of the task.

        Raises
        ------
        TaskError
            There is no task of that name.
        ModelMismatchError
            Tensors of the model were replaced since the switcher was made.
        """
        with self._registry.lock:
            self._switch(self._registry[task])
            self._active = task

    def deactivate(self) -> None:
        """Write the base's weights back, bit for bit.

        Raises
        ------
        ModelMismatchError
            Tensors of the model were replaced since the switcher was made.
        """
        with self._registry.lock:
            self._switch(NO_TASK)
            self._active = None

    def close(self) -> None:
        """Close the base, if it was opened here. No more tasks can be added. The model's weights do not change."""
        self._registry.close()

    def _check_apart(self, found: ModelMatch) -> None:
        """Raise TaskError if the active task has written parts of tensors whose original values are needed now."""
        written = self._mixed or (() if self._active is None else self._registry[self._active].changes)
        if slot := first_overlapping([*found.changed, *filter(None, found.bases.values())], written):
            problem = f"{slot.name}: expected the base's values, got those of the task {self._active!r}"
            raise TaskError(problem, Remedy("call deactivate() first"))

    def _save_originals(self, resident: ResidentPack) -> None:
        """Copy the base tensors of a task, and the model's own tensors where the task will be written."""
        base = self._registry.base
        with torch.inference_mode(False):  # Tensors made in inference mode could not be used outside of it.
            for slot in resident.changes:
                base.save_copies(resident.bases, resident.base_names(slot), slot.device)
                if slot not in self._originals:
                    # The copy of the base tensor may hold these bytes already.
                    saved = base.saved_original(slot)
                    self._originals[slot] = bytes_of(slot.tensor).clone() if saved is None else saved

    def _switch(self, new: ResidentPack) -> None:
        """Change the model from the active task to another, or back to it if that fails."""
        old = NO_TASK if self._active is None else self._registry[self._active]
        # Slots of the old task are restored, those of the new one written.
        slots = {**old.changes, **new.changes, **self._mixed}
        with writable(slots):
            try:
                for slot in _restored_first(slots, new):
                    self._switch_slot(slot, old, new)
            except BaseException:  # KeyboardInterrupt too: the model must not hold a mixture.
                self._mixed = slots
                for slot in _restored_first(slots, old):
                    self._write(slot, old, holds_base=False)
                self._mixed = {}
                raise
        self._mixed = {}

    def _switch_slot(self, slot: Slot, old: ResidentPack, new: ResidentPack) -> None:
        """Change a slot from one task to another. Where both code only some rows, no other rows are written."""
        # Rows that each task writes; None if it writes the whole tensor, or does not change it.
        to_write = new.coded_rows(slot) if slot in new.changes else None
        written = old.coded_rows(slot) if slot in old.changes else None
        is_overwritten = slot in new.changes and (to_write is None or (slot in old.changes and written is None))
        if is_overwritten or self._mixed:
            self._write(slot, new, holds_base=False)  # Overwrites every row, so none need be restored.
            return
        if slot in old.changes:
            restore_slot(slot, self._originals[slot], written, to_write)
        if slot in new.changes:
            self._write(slot, new, holds_base=True)

    def _write(self, slot: Slot, resident: ResidentPack, holds_base: bool) -> None:
        """Write a task's tensor into a slot, or the original one where the task does not change it."""
        if slot not in resident.changes:
            restore_slot(slot, self._originals[slot])
            return
        base, names, device = self._registry.base, resident.bases, slot.device
        write_slot(slot, resident.changes[slot], lambda name: base.read(name, names[name], device), holds_base)


def _restored_first(slots: Iterable[Slot], task: ResidentPack) -> list[Slot]:
    """Return slots in the order to write them for a task: those that it changes last, since others may overlap them."""
    return sorted(slots, key=lambda slot: slot in task.changes)
