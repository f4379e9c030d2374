"""Many tasks beside one model: each request of a batch names its own."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.codec.inputs import as_base
from dtscodec.codec.pack import PackSource, as_pack
from dtscodec.errors import ModelMismatchError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.runtime.base import RunningBase
from dtscodec.runtime.batch import Batch, Group
from dtscodec.runtime.paths.kinds import path_kind
from dtscodec.runtime.paths.path import Path, is_additive
from dtscodec.runtime.resident import Resident, load
from dtscodec.runtime.slots import Slot, slots_of
from dtscodec.runtime.tasks import check_new_task, task_named

BYPASSING = (nn.MultiheadAttention,)
"""Layers that use the weights of their parts without running them."""
NOT_BY_REQUEST = ("relative_attention_bias", "rel_embeddings", "distance_embedding", "rel_pos_emb", "experts")
"""Parts of models whose inputs have no row for each request: embeddings of distances (T5, DeBERTa, wav2vec2-BERT,
Granite Speech), which are looked up for all at once, and experts, which get tokens of all."""


class Attached:
    """A model with packs attached, made by `attach`. A context manager that detaches them.

    The model's weights stay the base's. Each layer that a task changes gets a low-rank path beside it, which is asked
    for by `serve`; outside of it the model is the base. Other threads may run the model while tasks come and go.

    The first dimension of every layer's input must be that of the requests, and a model that reads a layer's weight
    without running the layer goes unnoticed. Attach before the first call of a compiled model: torch looks for hooks
    only when it compiles. A backward pass that recomputes layers (checkpointing) belongs inside `serve` too.
    """

    def __init__(self, model: nn.Module, base: "Source | Base | None" = None) -> None:
        self._lock = threading.Lock()
        self._slots = slots_of(model)
        self._stack = ExitStack()
        self._base = RunningBase(self._stack.enter_context(as_base(base, whole=True)) if base is not None else None)
        self._tasks: Mapping[str, Resident] = {}
        self._batch: ContextVar[Batch | None] = ContextVar("batch", default=None)
        self._slots_of: dict[nn.Module, dict[str, Slot]] = defaultdict(dict)
        for slot in self._slots.values():
            for module, attribute in slot.owners:
                self._slots_of[module][attribute] = slot
        self._bypassed = {
            part for module in model.modules() if isinstance(module, BYPASSING) for part in module.children()
        }
        self._paths: dict[nn.Module, Path] = {}
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
            check_new_task(task, self._tasks)
            with as_pack(pack, whole=True) as opened:
                resident = load(opened, self._slots, self._base, self._check)
            for slot, change in resident.changes.items():
                if not is_additive(change.entry) and self._base.source is not None:
                    for name in resident.base_names(slot):
                        resident.kept[name] = self._base.fetch(name, resident.bases[name], slot.device)
                for module, _ in slot.owners:
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
            task_named(task, self._tasks)
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
            batch = Batch((Group(task_named(tasks, self._tasks), None),), None)
        else:
            batch = Batch.of([None if task is None else task_named(task, self._tasks) for task in tasks])
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
            self._paths.clear()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _check_attached(self) -> None:
        if not self._attached:
            raise ModelMismatchError(
                "expected packs that are attached, got a model that they were detached from; attach again"
            )

    def _check(self, entry: TensorEntry, slot: Slot) -> None:
        """Raise ModelMismatchError unless every layer that uses a tensor can have another one beside it."""
        for module, attribute in slot.owners:
            kind = self._kind(module)
            not_by_request = any(part in NOT_BY_REQUEST for part in slot.name.split("."))
            if kind is None or not_by_request or attribute not in ("weight", "bias"):
                what = f"expected a layer that can have a path beside it, got {type(module).__name__}; use Switcher"
                raise ModelMismatchError(f"{slot.name}: {what}")
            self._path(module, kind).check(attribute, entry)

    def _path(self, module: nn.Module, kind: type[Path]) -> Path:
        return kind(module, self._slots_of[module], self._read_base)

    def _kind(self, module: nn.Module) -> type[Path] | None:
        """The kind of path that a layer can have. Layers may be run for that, which must not be served."""
        token = self._batch.set(None)
        try:
            return path_kind(module) if module not in self._bypassed else None
        finally:
            self._batch.reset(token)

    def _put_path(self, module: nn.Module) -> None:
        if module in self._paths:
            return
        kind = self._kind(module)
        if kind is None:
            return
        self._paths[module] = self._path(module, kind)
        run: Any = torch.compiler.disable(self._run)  # type: ignore[no-untyped-call]  # Packs come and go, and are read by numpy.
        handle = module.register_forward_hook(run, with_kwargs=True)
        self._stack.callback(handle.remove)

    def _run(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Tensor:
        """The hook of every layer that has a path.

        What follows `args` is (kwargs, output); only (output) if the layer runs in the moment when torch has entered
        the hook, and not yet that it wants kwargs.
        """
        out: Tensor = rest[-1]
        batch = self._batch.get()
        inputs = [*args, *(rest[0].values() if len(rest) > 1 else ())]
        if batch is None or not batch.groups or not inputs:
            return out
        if module not in self._paths:
            raise ModelMismatchError(
                "expected the model that packs were attached to, got a copy of it; attach to that one"
            )
        if out.requires_grad and out.is_leaf:
            out = out.clone()
        return self._paths[module].run(inputs[0], out, batch)

    def _read_base(self, resident: Resident, device: torch.device, name: str) -> tuple[TensorSpec, Tensor]:
        if name in resident.kept:
            spec, data = resident.kept[name]
            return spec, data.to(device)
        return self._base.fetch(name, resident.bases[name], device)


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
        attached = stack.enter_context(Attached(model, base))
        for task, pack in packs.items():
            attached.add(task, pack)
        stack.pop_all()
    return attached
