"""Many tasks beside one model: each request of a batch names its own."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.codec.inputs import as_base
from dtscodec.codec.pack import PackSource, as_pack
from dtscodec.errors import ModelMismatchError, TaskError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.runtime.base import RunningBase
from dtscodec.runtime.batch import Batch, Group
from dtscodec.runtime.paths.kinds import path_kind
from dtscodec.runtime.paths.path import Path, is_additive
from dtscodec.runtime.resident import Resident, load
from dtscodec.runtime.slots import Slot, slots_of

BYPASSING = (nn.MultiheadAttention,)
"""Layers that use the weights of their parts without running them."""
DISTANCES = ("relative_attention_bias", "rel_embeddings")
"""Embeddings of distances (T5 and its kin, DeBERTa), which are looked up for all requests at once."""


class Attached:
    """A model with packs attached, made by `attach`. A context manager that detaches them.

    The model's weights stay the base's. Each layer that a task changes gets a low-rank path beside it, which is asked
    for by `serve`; outside of it the model is the base. Other threads may run the model while tasks come and go.
    """

    def __init__(self, model: nn.Module, base: Base | None) -> None:
        self._lock = threading.Lock()
        self._slots = slots_of(model)
        self._base = RunningBase(base)
        self._tasks: Mapping[str, Resident] = {}
        self._batch: ContextVar[Batch | None] = ContextVar("batch", default=None)
        self._owners = _owners(model, self._slots)
        self._bypassed = {
            part for module in model.modules() if isinstance(module, BYPASSING) for part in module.children()
        }
        self._paths: dict[nn.Module, Path] = {}
        self._stack = ExitStack()
        self._attached = True

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that requests may name."""
        return tuple(self._tasks)

    def memory(self) -> dict[str, int]:
        """Bytes in memory of each task's pack."""
        return {task: resident.nbytes for task, resident in self._tasks.items()}

    def add(self, task: str, pack: PackSource) -> None:
        """Add a task. The pack is read whole, checked, and may be closed or deleted afterwards.

        Raises
        ------
        ModelMismatchError
            The pack does not fit the model, or changes what cannot have a path beside it.
        BaseMismatchError
            The model, or `base`, is not the base that the pack was made against.
        FormatError
            The pack is damaged.
        TaskError
            There is a task of that name.
        """
        with self._lock:
            self._check_attached()
            if task in self._tasks:
                raise TaskError(f"{task!r}: expected the name of a new task, got one that is there; remove it first")
            with as_pack(pack) as opened:
                resident = load(opened, self._slots, self._base, self._check)
            for slot, change in resident.changes.items():
                if not is_additive(change.entry):
                    self._base.keep(resident.bases, resident.base_names(slot), slot.device)
                for module, _ in self._owners[slot]:
                    self._put_path(module)
            self._tasks = {**self._tasks, task: resident}

    def remove(self, task: str) -> None:
        """Remove a task, and free its memory when the batches that ask for it are through.

        Raises
        ------
        TaskError
            There is none of that name.
        """
        with self._lock:
            self._resident(task)
            self._tasks = {name: resident for name, resident in self._tasks.items() if name != task}

    @contextmanager
    def serve(self, tasks: "str | Sequence[str | None]") -> Iterator[Batch]:
        """A context in which the model runs with these tasks, in this thread.

        Parameters
        ----------
        tasks : str, or sequence of str or None
            One task for all requests, or one for each: the model's inputs have as many rows. None is the base.

        Yields
        ------
        Batch
            `outputs` cuts a model's output into those of the requests.

        Raises
        ------
        TaskError
            There is none of that name.
        ModelMismatchError
            The packs were detached; or, from the model, a layer's input has another number of rows.
        """
        self._check_attached()
        if isinstance(tasks, str):
            batch = Batch((Group(self._resident(tasks), None),), None)
        else:
            batch = Batch.of([None if task is None else self._resident(task) for task in tasks])
        token = self._batch.set(batch)
        try:
            yield batch
        finally:
            self._batch.reset(token)

    def detach(self) -> None:
        """Take the paths off the model and let go of the packs."""
        with self._lock:
            self._attached = False
            self._tasks = {}
            self._stack.close()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def keep_open(self, stack: ExitStack) -> None:
        """Take over what is to be closed with this."""
        self._stack.push(stack)

    def _check_attached(self) -> None:
        if not self._attached:
            raise ModelMismatchError(
                "expected packs that are attached, got a model that they were detached from; attach again"
            )

    def _resident(self, task: str) -> Resident:
        try:
            return self._tasks[task]
        except KeyError:
            detail = f"expected one of the tasks {sorted(self._tasks)}, got none of that name"
            raise TaskError(f"{task!r}: {detail}") from None

    def _check(self, entry: TensorEntry, slot: Slot) -> None:
        """Raise ModelMismatchError unless every layer that uses a tensor can have another one beside it."""
        owners = self._owners.get(slot, [])
        for module, attribute in owners:
            kind = path_kind(module) if module not in self._bypassed else None
            by_distance = any(part in DISTANCES for part in slot.name.split("."))
            if kind is None or by_distance or attribute not in ("weight", "bias"):
                what = f"expected a layer that can have a path beside it, got {type(module).__name__}; use Switcher"
                raise ModelMismatchError(f"{slot.name}: {what}")
            self._path(module, kind).check(attribute, entry)

    def _path(self, module: nn.Module, kind: type[Path]) -> Path:
        slots = {attribute: slot for slot, users in self._owners.items() for user, attribute in users if user is module}
        return kind(module, slots, self._read_base)

    def _put_path(self, module: nn.Module) -> None:
        if module in self._paths:
            return
        kind = path_kind(module)
        assert kind is not None
        self._paths[module] = self._path(module, kind)
        handle = module.register_forward_hook(self._run, with_kwargs=True)
        self._stack.callback(handle.remove)

    def _run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor:
        """The hook of every layer that has a path."""
        batch = self._batch.get()
        if batch is None or not batch.groups:
            return out
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        return self._paths[module].run(x, out, batch)

    def _read_base(self, resident: Resident, name: str) -> tuple[TensorSpec, Tensor]:
        return self._base.read(name, resident.bases[name])


def attach(
    model: nn.Module, packs: Mapping[str, PackSource] = MappingProxyType({}), base: "Source | Base | None" = None
) -> Attached:
    """Attach packs to a model that holds the base, so that each request of a batch can name a task.

    Linear layers, GPT-2's Conv1D, embeddings and convolutions get a low-rank path for their weight, LayerNorm and
    RMSNorm one for theirs, and biases one each. A linear layer that a task has as a whole (a new head) is used in place
    of the model's. Any other parameter that a task changes is refused.

    Parameters
    ----------
    model : nn.Module
    packs : mapping
        Packs by task.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the packs were made against.

    Raises
    ------
    ModelMismatchError, BaseMismatchError, FormatError
        As for `Attached.add`. The model is as it was.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    >>> fine = {name: tensor + torch.ones(64) for name, tensor in model.state_dict().items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = dtscodec.encode(model.state_dict(), fine, f"{folder}/pack").path
    ...     attached = dtscodec.attach(model, {"one": path})
    >>> with torch.no_grad(), attached.serve(["one", None]):
    ...     one, base = model(torch.ones(2, 64))
    >>> torch.allclose(one - base, torch.tensor(65.0), rtol=1e-2)
    True
    >>> attached.detach()
    """
    with ExitStack() as stack:
        opened = stack.enter_context(as_base(base)) if base is not None else None
        attached = stack.enter_context(Attached(model, opened))
        for task, pack in packs.items():
            attached.add(task, pack)
        stack.pop_all()
    return attached


def _owners(model: nn.Module, slots: Mapping[str, Slot]) -> dict[Slot, list[tuple[nn.Module, str]]]:
    """The layers that use each slot, and the attribute by which they do."""
    modules = dict(model.named_modules(remove_duplicate=False))
    owners: dict[Slot, list[tuple[nn.Module, str]]] = {}
    for name, slot in slots.items():
        prefix, _, attribute = name.rpartition(".")
        owner = (modules[prefix], attribute)
        if owner not in owners.setdefault(slot, []):
            owners[slot].append(owner)
    return owners
