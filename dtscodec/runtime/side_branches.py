"""The side paths of a model's layers: which can have one, and for whom they run."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError
from dtscodec.format.index import TensorEntry
from dtscodec.runtime.branches.branch import ReadBaseOf, SideBranch
from dtscodec.runtime.branches.factory import branch_class
from dtscodec.runtime.request_batch import TaskSelector
from dtscodec.runtime.slots import Slot

BYPASSING = (nn.MultiheadAttention,)
"""Layers that use the weights of their parts without running them."""
NOT_BY_REQUEST = ("relative_attention_bias", "rel_embeddings", "distance_embedding", "rel_pos_emb", "experts")
"""Parts of models whose inputs have no row for each request: embeddings of distances (T5, DeBERTa, wav2vec2-BERT,
Granite Speech), which are looked up for all at once, and experts, which get tokens of all."""


class SideBranches:
    """The paths beside a model's layers, and the hooks that run them.

    Parameters
    ----------
    model : nn.Module
    slots : iterable of Slot
        The model's.
    read_base : callable

    Attributes
    ----------
    paths : dict
        By layer.
    """

    def __init__(self, model: nn.Module, slots: Iterable[Slot], read_base: ReadBaseOf) -> None:
        self.paths: dict[nn.Module, SideBranch] = {}
        self._read_base = read_base
        self._requests: ContextVar[TaskSelector | None] = ContextVar("requests", default=None)
        self._hooks = ExitStack()
        self._slots_of: dict[nn.Module, dict[str, Slot]] = defaultdict(dict)
        for slot in slots:
            for module, attribute in slot.owners:
                self._slots_of[module][attribute] = slot
        self._bypassed = {
            part for module in model.modules() if isinstance(module, BYPASSING) for part in module.children()
        }

    def put(self, slot: Slot) -> None:
        """Put a path beside every layer that has a tensor."""
        for module, _ in slot.owners:
            self._put(module)

    def clear(self) -> None:
        """Take all off the model."""
        self._hooks.close()
        self.paths.clear()

    @contextmanager
    def running(self, requests: TaskSelector | None) -> Iterator[None]:
        """A context in which the model runs for these requests, in this thread; None: for the base."""
        token = self._requests.set(requests)
        try:
            yield
        finally:
            self._requests.reset(token)

    def check(self, entry: TensorEntry, slot: Slot) -> None:
        """Raise ModelMismatchError unless every layer that uses a tensor can have another one beside it."""
        for module, attribute in slot.owners:
            kind = self._kind(module)
            not_by_request = any(part in NOT_BY_REQUEST for part in slot.name.split("."))
            if kind is None or not_by_request or attribute not in ("weight", "bias"):
                what = f"expected a layer that can have a path beside it, got {type(module).__name__}; use Switcher"
                raise ModelMismatchError(f"{slot.name}: {what}")
            self._path(module, kind).check(attribute, entry)

    def _path(self, module: nn.Module, kind: type[SideBranch]) -> SideBranch:
        return kind(module, self._slots_of[module], self._read_base)

    def _kind(self, module: nn.Module) -> type[SideBranch] | None:
        """The kind of path that a layer can have. Layers may be run for that, which must not be served."""
        with self.running(None):
            return branch_class(module) if module not in self._bypassed else None

    def _put(self, module: nn.Module) -> None:
        if module in self.paths:
            return
        kind = self._kind(module)
        if kind is None:
            return
        self.paths[module] = self._path(module, kind)
        run: Any = torch.compiler.disable(self._run)  # type: ignore[no-untyped-call]  # Packs come and go, and are read by numpy.
        handle = module.register_forward_hook(run, with_kwargs=True)
        self._hooks.callback(handle.remove)

    def _run(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Tensor:
        """The hook of every layer that has a path.

        What follows `args` is (kwargs, output); only (output) if the layer runs in the moment when torch has entered
        the hook, and not yet that it wants kwargs.
        """
        out: Tensor = rest[-1]
        requests = self._requests.get()
        inputs = [*args, *(rest[0].values() if len(rest) > 1 else ())]
        if requests is None or not inputs:
            return out
        if module not in self.paths:
            raise ModelMismatchError(
                "expected the model that packs were attached to, got a copy of it; attach to that one"
            )
        batch = requests.at(module, inputs[0])
        if not batch.groups:
            return out
        if out.requires_grad and out.is_leaf:
            out = out.clone()
        return self.paths[module].run(inputs[0], out, batch)
