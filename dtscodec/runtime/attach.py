"""Many tasks beside one model: each request of a batch names its own."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import get_args

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.open_inputs import as_base
from dtscodec.errors import ConfigError, ModelMismatchError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.runtime.branches.branch import is_additive
from dtscodec.runtime.prototypes import Prototypes
from dtscodec.runtime.request_batch import RequestBatch, TaskRequests
from dtscodec.runtime.resident_pack import ResidentPack, load_resident
from dtscodec.runtime.routing import Router, Routing, Scope, make_router
from dtscodec.runtime.running_base import RunningBase
from dtscodec.runtime.side_branches import SideBranches
from dtscodec.runtime.slots import slots_of
from dtscodec.runtime.tasks import check_new_task, task_named


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
        self._model = model
        self._slots = slots_of(model)
        self._stack = ExitStack()
        self._base = RunningBase(self._stack.enter_context(as_base(base, whole=True)) if base is not None else None)
        self._layers = SideBranches(model, self._slots.values(), self._read_base)
        self._tasks: Mapping[str, ResidentPack] = {}
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
                resident = load_resident(opened, self._slots, self._base, self._layers.check)
            for slot, change in resident.changes.items():
                if not is_additive(change.entry) and self._base.source is not None:
                    for name in resident.base_names(slot):
                        resident.kept[name] = self._base.fetch(name, resident.bases[name], slot.device)
                self._layers.put(slot)
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
    def serve(self, tasks: "str | Sequence[str | None]") -> Iterator[RequestBatch]:
        """A context in which the model runs with these tasks, in this thread.

        Parameters
        ----------
        tasks : str, or sequence of str or None
            One task for all requests, or one for each: the model's inputs have as many rows. None is the base.

        Yields
        ------
        RequestBatch
            `outputs` cuts a model's output into those of the requests.

        Raises
        ------
        TaskError
            There is none of that name.
        ModelMismatchError
            The packs were detached; or, from the model, a layer's input has another number of rows.
        """
        self._check_attached()
        batch = self._batch_of(tasks)
        with self._layers.running(batch):
            yield batch

    def route(self, prototypes: Mapping[str, Prototypes], scope: Scope = "layer") -> Router:
        """Prepare for requests that name no task, as ESM++ does: `routing` runs the model with them.

        A linear layer routes if each of these tasks has a prototype of its inputs, some change it, and none has it as a
        whole.

        Parameters
        ----------
        prototypes : mapping
            For each task that may be chosen a file that `dtscodec collect` made of its fine-tune, or means by weight.
        scope : {"layer", "sample"}
            Whether each layer decides for itself, or the first that routes for all that follow, heads and norms too.

        Raises
        ------
        TaskError
            There is no such task.
        ModelMismatchError
            No layer has prototypes of all tasks, one is not as long as its layer's inputs, or the packs were detached.
        CheckpointError
            A file cannot be read.
        ConfigError
            There is no such scope.
        """
        if scope not in get_args(Scope):
            raise ConfigError(f"scope: expected one of {get_args(Scope)}, got {scope!r}")
        with self._lock:
            self._check_attached()
            tasks = {task: task_named(task, self._tasks) for task in prototypes}
            return make_router(self._model, self._layers.paths, tasks, prototypes, scope)

    @contextmanager
    def routing(
        self, router: Router, mask: Tensor | None = None, heads: "str | Sequence[str | None] | None" = None
    ) -> Iterator[Routing]:
        """A context in which the rows of the model's inputs find their tasks. A `serve` inside of it goes first.

        Parameters
        ----------
        router : Router
            Made by `route`.
        mask : [rows, tokens], optional
            Not 0 where a token is none of the padding, which is left out of means.
        heads : str, or sequence of str or None, optional
            As for `serve`: whose layers to use where tasks have layers as a whole, such as new heads. By default those
            of the row's task in the scope "sample", else the base's.

        Yields
        ------
        Routing
            `tasks` tells what was chosen, `outputs` cuts a model's output into those of the requests.

        Raises
        ------
        TaskError
            There is no task of that name.
        ModelMismatchError
            The packs were detached; or, from the model, a layer's input has other rows than the mask.
        """
        self._check_attached()
        routing = Routing(router, mask, None if heads is None else self._batch_of(heads))
        with self._layers.running(routing):
            yield routing

    def detach(self) -> None:
        """Take the paths off the model and let go of the packs."""
        with self._lock:
            self._attached = False
            self._tasks = {}
            self._layers.clear()
            self._stack.close()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _batch_of(self, tasks: "str | Sequence[str | None]") -> RequestBatch:
        if isinstance(tasks, str):
            return RequestBatch((TaskRequests(task_named(tasks, self._tasks), None),), None)
        return RequestBatch.of([None if task is None else task_named(task, self._tasks) for task in tasks])

    def _check_attached(self) -> None:
        if not self._attached:
            raise ModelMismatchError(
                "expected packs that are attached, got a model that they were detached from; attach again"
            )

    def _read_base(self, resident: ResidentPack, device: torch.device, name: str) -> tuple[TensorSpec, Tensor]:
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
