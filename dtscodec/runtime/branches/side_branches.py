"""The side branches of a model: the layers that can have one, and the forward hooks that run them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy, TaskError
from dtscodec.format.index import TensorEntry
from dtscodec.runtime.branches.branch import ReadTaskBase, SideBranch
from dtscodec.runtime.branches.branch_for_layer import branch_class
from dtscodec.runtime.branches.branched_class import add_branched_class, not_compiled, remove_branched_class
from dtscodec.runtime.branches.request_batch import RequestBatch, TaskSelector
from dtscodec.runtime.branches.row_checks import RowChecks
from dtscodec.runtime.model.slots import Slot

BYPASS_CHILDREN = (nn.MultiheadAttention,)
"""Layers that use the weights of their children without calling them, so that hooks of those never run."""
NO_ROW_PER_REQUEST = ("relative_attention_bias", "rel_embeddings", "distance_embedding", "rel_pos_emb", "experts")
"""Names of modules whose inputs have no row for each request: embeddings of distances (T5, DeBERTa, wav2vec2-BERT,
Granite Speech), which are looked up once for all requests, and experts, which get tokens of several."""

NO_CHECKPOINTING = Remedy("call backward inside serve; on GPUs, train without gradient checkpointing")


class SideBranches:
    """The side branches of a model by layer.

    A layer's branch runs as a forward hook, for the tasks that the selector of the current context gives. The selector
    is a context variable: each thread and each asyncio task has its own.

    Parameters
    ----------
    model : nn.Module
        The model.
    slots : iterable of Slot
        Its parameters and buffers.
    read_base : callable
        Reads base tensors, to rebuild tensors that are not the base plus a delta.

    Attributes
    ----------
    by_layer : dict of Module to SideBranch
        The branches that were added.
    """

    def __init__(self, model: nn.Module, slots: Iterable[Slot], read_base: ReadTaskBase) -> None:
        self.by_layer: dict[nn.Module, SideBranch] = {}
        self._read_base = read_base
        self._selector: ContextVar[TaskSelector | None] = ContextVar("selector", default=None)
        self._hooks = ExitStack()
        self._rows = RowChecks(model)
        hook = model.register_forward_pre_hook(not_compiled(self._check_entry), with_kwargs=True)
        self._hooks.callback(hook.remove)
        self._slots_of: dict[nn.Module, dict[str, Slot]] = defaultdict(dict)
        # The slots of each layer, by attribute.
        for slot in slots:
            for module, attribute in slot.owners:
                self._slots_of[module][attribute] = slot
        self._bypassed = {
            child for module in model.modules() if isinstance(module, BYPASS_CHILDREN) for child in module.children()
        }

    def add(self, slot: Slot) -> None:
        """Add a branch, with its hook, to every layer that owns a slot and has none."""
        for module, _ in slot.owners:
            self._add_to(module)

    def clear(self) -> None:
        """Remove all branches and hooks from the model."""
        self._hooks.close()
        self.by_layer.clear()

    @contextmanager
    def selected_by(self, selector: TaskSelector | None) -> Iterator[None]:
        """Let a selector choose each layer's tasks while the context lasts, in this thread.

        Parameters
        ----------
        selector : TaskSelector or None
            None for the base.

        Raises
        ------
        TaskError
            Another context was entered before this one and ends later, or this one ends in another thread.
        """
        before = self._selector.get()
        self._selector.set(selector)
        try:
            yield
        finally:
            # A generator that yields inside of this context shares it with its callers, or runs on without it.
            is_own = self._selector.get() is selector
            self._selector.set(before if is_own else None)
        if not is_own:
            problem = "serve: expected the same tasks until it ends, got others, or none: a generator yielded meanwhile"
            raise TaskError(problem, Remedy("enter serve anew for each run of the model, and yield outside of it"))

    def check(self, entry: TensorEntry, slot: Slot) -> None:
        """Check that every layer that owns a slot can have a side branch for a task's tensor.

        Parameters
        ----------
        entry : TensorEntry
            The task's tensor.
        slot : Slot
            The slot that it changes.

        Raises
        ------
        ModelMismatchError
            One of the layers cannot.
        """
        _ = slot.spec  # Raises an error for weights without data, which cannot be read below.
        for module, attribute in slot.owners:
            kind = self._class_for(module)
            has_rows = not any(part in NO_ROW_PER_REQUEST for part in slot.name.split("."))
            # A tensor that the model holds as a part of another has no layer of its own, and a parametrized layer
            # (weight norm) computes its weight from parameters of other modules.
            has_own = slot.is_whole and "weight" in self._slots_of[module]
            if kind is None or not has_rows or not has_own or attribute not in ("weight", "bias"):
                found = f"{'' if slot.is_whole else 'a part of '}{type(module).__name__}"
                problem = f"{slot.name}: expected a layer that can have a side branch, got {found}"
                raise ModelMismatchError(problem, Remedy("use Switcher"))
            self._branch(module, kind).check(attribute, entry)

    def _branch(self, module: nn.Module, kind: type[SideBranch]) -> SideBranch:
        return kind(module, self._slots_of[module], self._read_base)

    def _class_for(self, module: nn.Module) -> type[SideBranch] | None:
        """Return the class of branch that a layer can have, if any."""
        with self.selected_by(None):  # `branch_class` may call the layer; its hook must add no task's delta.
            return branch_class(module) if module not in self._bypassed else None

    def _add_to(self, module: nn.Module) -> None:
        if module in self.by_layer:
            return
        kind = self._class_for(module)
        if kind is None:
            return
        self.by_layer[module] = self._branch(module, kind)
        handle = module.register_forward_hook(not_compiled(self._hook), with_kwargs=True)
        self._hooks.callback(handle.remove)
        # After the hook, and removed before it: code that is compiled for the layer's new class calls the hook.
        add_branched_class(module, self._find_changed)
        self._hooks.callback(remove_branched_class, module, self._find_changed)

    def _check_entry(self, module: nn.Module, args: tuple[Any, ...], *rest: dict[str, Any]) -> None:
        """Check the model's own input; `rest` is as for `_hook`."""
        _check_is_eager()
        selector = self._selector.get()
        if isinstance(selector, RequestBatch):
            self._rows.check_entry(selector, args, rest[0] if rest else {})

    def _find_changed(self, module: nn.Module, attribute: str) -> str | None:
        """Return the name of a layer's parameter if the tasks of this context may change it, else None."""
        selector, slot = self._selector.get(), self._slots_of[module].get(attribute)
        is_changed = selector is not None and slot is not None and selector.may_change(slot)
        return slot.name if slot is not None and is_changed else None

    def _hook(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Tensor:
        """Return a layer's output with those of its side branch added.

        `rest` is (kwargs, output). It is (output,) if another thread calls the layer just after torch has registered
        the hook, and before it has registered that the hook takes kwargs.
        """
        out: Tensor = rest[-1]
        _check_is_eager()
        selector = self._selector.get()
        if selector is None and torch._C._current_graph_task_id() >= 0:
            detail = "expected a backward pass inside serve, got one outside of it that recomputes the layer"
            problem = f"{type(module).__name__}: {detail}"
            raise ModelMismatchError(problem, NO_CHECKPOINTING)
        # The input is the first argument, positional or by keyword.
        inputs = [*args, *(rest[0].values() if len(rest) > 1 else ())]
        if selector is None or not inputs:
            return out
        # Copying a model copies its hooks, but not its branches.
        if module not in self.by_layer:
            problem = "expected the model that packs were attached to, got a copy of it"
            raise ModelMismatchError(problem, Remedy("attach to the copy"))
        # Tasks as named by the caller, or as routed by the layer's input.
        batch = selector.select(module, inputs[0])
        branch = self.by_layer[module]
        changed = next((slot.name for slot in branch.slots.values() if batch.may_change(slot)), None)
        if changed is None:
            return out
        batch = self._rows.rows_of(batch, module, changed, inputs[0])
        if out.requires_grad and out.is_leaf:
            out = out.clone()  # Branches add in place, which torch forbids for leaves.
        return branch.forward(inputs[0], out, batch)


def _check_is_eager() -> None:
    """Raise ModelMismatchError if the model is traced or exported, which would fix the tasks of this run, or none."""
    is_exporting = getattr(torch.compiler, "is_exporting", bool)  # torch before 2.7 has none.
    if torch._C._is_tracing() or is_exporting():
        problem = "the model: expected one without attached packs to trace or export"
        raise ModelMismatchError(problem, Remedy("detach them, and use apply_ or Switcher"))
