"""A model with packs attached: side branches add each task's delta, chosen by request."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import get_args

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.errors import ConfigError, Remedy
from dtscodec.format.dtypes import TensorSpec
from dtscodec.packs.pack import PackSource
from dtscodec.runtime.branches.branch import is_additive
from dtscodec.runtime.branches.request_batch import RequestBatch, TaskRequests
from dtscodec.runtime.branches.side_branches import SideBranches
from dtscodec.runtime.model.offloading import check_stays_in_place
from dtscodec.runtime.prototypes import Prototypes
from dtscodec.runtime.resident_pack import ResidentPack
from dtscodec.runtime.routing import Router, Routing, Scope, make_router
from dtscodec.runtime.task_registry import TaskRegistry


class Attached:
    """A model with packs attached, made by `attach`. A context manager that detaches them.

    The model's weights stay the base's. Each layer that a task changes gets a side branch, which runs inside `serve`
    and `routing` only; outside of them the model computes the base. Methods may be called from any thread, also while
    other threads run the model: `serve` and `routing` hold for the thread (or asyncio task) that entered them.

    Parameters
    ----------
    model : nn.Module
        The model, which holds the base's weights.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the packs were made against.

    Notes
    -----
    The first dimension of every layer's input must be that of the requests. Layers with a side branch have a subclass
    of their class until `detach`. Models may be compiled and run before or after; `fullgraph=True` is an error, since
    side branches stay outside of graphs. Tracing and export are errors. A backward pass that recomputes layers
    (gradient checkpointing) must run inside `serve` too.

    A thread that is started inside `serve` runs the base, and a generator must not yield there.
    """

    def __init__(self, model: nn.Module, base: "Source | Base | None" = None) -> None:
        check_stays_in_place(model)
        self._model = model
        self._registry = TaskRegistry(
            model, base, "expected attached packs, got detached ones", Remedy("attach them again")
        )
        self._branches = SideBranches(model, self._registry.slots.values(), self._read_base)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that requests may ask for."""
        return self._registry.tasks

    def memory(self) -> dict[str, int]:
        """Return the bytes in memory of each task's pack."""
        return self._registry.memory()

    def add(self, task: str, pack: PackSource) -> None:
        """Add a task.

        Parameters
        ----------
        task : str
            A new name.
        pack : path, bytes or Pack
            The task's pack. It is read completely and may be closed or deleted afterwards.

        Raises
        ------
        ModelMismatchError
            The pack does not match the model, changes a tensor that cannot have a side branch, or the packs were
            detached.
        BaseMismatchError
            The model, or `base`, is not the base that the pack was made against.
        FormatError
            The pack is damaged.
        TaskError
            There is a task of that name.
        """
        self._registry.add(task, pack, self._prepare, self._branches.check)

    def remove(self, task: str) -> None:
        """Remove a task. Its memory is freed when the batches that ask for it are finished.

        Parameters
        ----------
        task : str
            Name of the task.

        Raises
        ------
        TaskError
            There is no task of that name.
        """
        self._registry.remove(task)

    @contextmanager
    def serve(self, tasks: "str | Sequence[str | None]") -> Iterator[RequestBatch]:
        """Run the model with given tasks while the context lasts, in this thread.

        Parameters
        ----------
        tasks : str, or sequence of str or None
            One task for all requests; or the task of each request, where the model's inputs have one row a request.
            None is the base.

        Yields
        ------
        RequestBatch
            Its method `outputs` splits a model's output by request.

        Raises
        ------
        TaskError
            There is no task of that name; or, at the end, a generator yielded inside of the context.
        ModelMismatchError
            The packs were detached, or the model's weights or layers are others by now; or, raised by the model, a
            layer's input has another number of rows.
        """
        self._registry.check_open()
        batch = self._batch_of(tasks)
        self._registry.check_model(group.resident for group in batch.groups)
        with self._branches.selected_by(batch):
            yield batch
        self._registry.check_open()

    def route(self, prototypes: Mapping[str, Prototypes], scope: Scope = "layer") -> Router:
        """Prepare a router, with which layers choose the task of each request as in ESM++; `routing` runs it.

        A linear layer routes if each of these tasks has a prototype of the layer's inputs, at least one task changes
        the layer, and none replaces it (a head).

        Parameters
        ----------
        prototypes : mapping
            For each task that may be chosen its mean layer inputs: a file of Gram matrices that were collected with
            the fine-tune, or tensors of shape [d_in] by the name of the layer's weight.
        scope : {"layer", "sample"}
            Whether each layer chooses for itself, or the first layer that routes chooses for all that follow, heads
            and norms included.

        Returns
        -------
        Router
            It holds its own references to the packs, so that it works even after tasks are removed.

        Raises
        ------
        TaskError
            There is no such task.
        ModelMismatchError
            No layer has prototypes of all tasks, one differs in length from its layer's inputs, or the packs were
            detached.
        CheckpointError
            A file cannot be read.
        ConfigError
            There is no such scope.
        """
        if scope not in get_args(Scope):
            raise ConfigError(f"scope: expected one of {get_args(Scope)}, got {scope!r}")
        with self._registry.lock:
            self._registry.check_open()
            tasks = {task: self._registry[task] for task in prototypes}
            return make_router(self._model, self._branches.by_layer, tasks, prototypes, scope)

    @contextmanager
    def routing(
        self, router: Router, mask: Tensor | None = None, heads: "str | Sequence[str | None] | None" = None
    ) -> Iterator[Routing]:
        """Let each row of the model's inputs choose its task while the context lasts, in this thread.

        A `serve` inside of it takes precedence.

        Parameters
        ----------
        router : Router
            Made by `route`.
        mask : [rows, tokens], optional
            Attention mask: 0 for padding, which is excluded from the means.
        heads : str, or sequence of str or None, optional
            As `tasks` of `serve`, for heads (layers that a task stores as a whole) only. By default the row's task in
            the scope "sample", and the base in the scope "layer".

        Yields
        ------
        Routing
            `tasks` are the choices, `outputs` splits a model's output by request.

        Raises
        ------
        TaskError
            There is no task of that name.
        ModelMismatchError
            The packs were detached, or the model's weights or layers are others by now; or, raised by the model, the
            rows of a layer's input are not those of the mask.
        """
        self._registry.check_open()
        routing = Routing(router, mask, None if heads is None else self._batch_of(heads))
        self._registry.check_model(router.tasks.values())
        with self._branches.selected_by(routing):
            yield routing
        self._registry.check_open()

    def detach(self) -> None:
        """Remove all side branches and packs from the model."""
        with self._registry.lock:
            self._registry.clear()
            self._branches.clear()
            self._registry.close()

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _prepare(self, resident: ResidentPack) -> None:
        """Copy the base tensors that whole tensors are rebuilt from, and add the branches that a task needs."""
        # Whole tensors are rebuilt at each call, so base tensors of a source are read once, here.
        base = self._registry.base
        for slot, change in resident.changes.items():
            if not is_additive(change.entry) and base.source is not None:
                for name in resident.base_names(slot):
                    resident.base_copies[name] = base.read(name, resident.bases[name], slot.device)
            self._branches.add(slot)

    def _batch_of(self, tasks: "str | Sequence[str | None]") -> RequestBatch:
        # One task for all requests needs no indices of rows, so that any number of rows will do.
        if isinstance(tasks, str):
            return RequestBatch((TaskRequests(self._registry[tasks], None),), None)
        return RequestBatch.of([None if task is None else self._registry[task] for task in tasks])

    def _read_base(self, resident: ResidentPack, device: torch.device, name: str) -> tuple[TensorSpec, Tensor]:
        if name in resident.base_copies:
            spec, data = resident.base_copies[name]
            return spec, data.to(device)
        return self._registry.base.read(name, resident.bases[name], device)
