"""The tasks of one running model: resident packs by name, checked against the model and its base."""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import chain

from torch import nn

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.errors import ModelMismatchError, Remedy, TaskError
from dtscodec.format.index import TensorEntry
from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.runtime.model.model_matching import ModelMatch, check_writable
from dtscodec.runtime.model.model_slots import ModelSlots
from dtscodec.runtime.model.slots import Slot
from dtscodec.runtime.resident_pack import ResidentPack, load_resident
from dtscodec.runtime.running_base import open_running_base


class TaskRegistry:
    """Resident packs of a model by task: what `Switcher` and `Attached` share.

    Methods may be called from any thread. The mapping of tasks is replaced, never changed, so that looking a task up
    takes no lock.

    Parameters
    ----------
    model : nn.Module
        The model, which holds the base's weights.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the packs were made against.
    closed : str
        Problem that `check_open` reports after `close`.
    reopen : Remedy
        Remedy of that problem.

    Attributes
    ----------
    lock : threading.RLock
        Held while tasks are added or removed.
    slots : ModelSlots
        The model's parameters and buffers.
    base : RunningBase
        The base tensors, which packs are checked against.
    """

    def __init__(self, model: nn.Module, base: "Source | Base | None", closed: str, reopen: Remedy) -> None:
        self.lock = threading.RLock()
        self.slots = ModelSlots(model)
        self._stack = ExitStack()
        self.base = self._stack.enter_context(open_running_base(base))
        self._residents: Mapping[str, ResidentPack] = {}
        self._closed, self._reopen = closed, reopen
        self._is_closed = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order in which they were added."""
        return tuple(self._residents)

    def memory(self) -> dict[str, int]:
        """Return the bytes in memory of each task's pack."""
        return {task: resident.nbytes for task, resident in self._residents.items()}

    def __getitem__(self, task: str) -> ResidentPack:
        try:
            return self._residents[task]
        except KeyError:
            known = sorted(self._residents)
            raise TaskError(f"{task!r}: expected one of the tasks {known}, got none of that name") from None

    def add(
        self,
        task: str,
        pack: PackSource,
        prepare: Callable[[ResidentPack], None],
        check: Callable[[TensorEntry, Slot], None] = check_writable,
        check_match: Callable[[ModelMatch], None] = lambda _: None,
        exact: bool = False,
    ) -> None:
        """Read a pack, check it against model and base, and register it.

        Parameters
        ----------
        task : str
            A new name.
        pack : path, bytes or Pack
            Read completely; it may be closed or deleted afterwards.
        prepare : callable
            Called with the resident pack before the task can be looked up. If it raises an error, no task is added.
        check : callable
            Raises ModelMismatchError unless a changed tensor can be used in a slot of the model.
        check_match : callable
            Raises an error if the slots of changed tensors and of base tensors cannot be used now.
        exact : bool
            Whether the residual layer is read, too.

        Raises
        ------
        ModelMismatchError
            The pack does not match the model, or the registry is closed.
        BaseMismatchError
            The model, or `base`, is not the base that the pack was made against.
        FormatError
            The pack is damaged.
        TaskError
            There is a task of that name.
        """
        with self.lock:
            self.check_open()
            if task in self._residents:
                problem = f"{task!r}: expected the name of a new task, got an existing one"
                raise TaskError(problem, Remedy("remove it first"))
            with as_pack(pack, whole=exact, front=not exact) as opened:
                resident = load_resident(opened, self.slots, self.base, check, check_match, exact)
            # Before the task can be looked up, so that no thread sees it half prepared.
            prepare(resident)
            # Replace the mapping: lookups in other threads hold no lock.
            self._residents = {**self._residents, task: resident}

    def remove(self, task: str) -> None:
        """Remove a task. Its memory is freed once no batch and no router uses it.

        Parameters
        ----------
        task : str
            Name of the task.

        Raises
        ------
        TaskError
            There is no task of that name.
        """
        with self.lock:
            self[task]  # Raises the error for unknown tasks.
            self._residents = {name: resident for name, resident in self._residents.items() if name != task}

    def clear(self) -> None:
        """Remove all tasks."""
        with self.lock:
            self._residents = {}

    def close(self) -> None:
        """Close the base, if it was opened here. Tasks stay, but none can be added."""
        with self.lock:
            self._is_closed = True
            self._stack.close()

    def check_model(self, residents: Iterable[ResidentPack]) -> None:
        """Raise ModelMismatchError unless the model has the layers and the base's weights that tasks were added to.

        Parameters
        ----------
        residents : iterable of ResidentPack
            The tasks.
        """
        found = list(residents)
        layers = set(self.slots.model.modules())
        for slot in dict.fromkeys(chain.from_iterable(resident.changes for resident in found)):
            if any(module not in layers for module, _ in slot.owners):
                problem = f"{slot.name}: expected the layer that the model had before, got another"
                raise ModelMismatchError(problem, Remedy("attach the packs again"))
        # All packs were made against the same base, so each tensor is checked once.
        held = {slot: (name, resident.leaves[name]) for resident in found for name, slot in resident.bases.items()}
        self.base.check_held(held)

    def check_open(self) -> None:
        """Raise ModelMismatchError after `close`."""
        if self._is_closed:
            raise ModelMismatchError(self._closed, self._reopen)
