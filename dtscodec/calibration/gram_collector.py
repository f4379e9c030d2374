"""Gram matrices of the inputs of a running model's linear layers."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.activations.gram_file import Gram, GramSet
from dtscodec.runtime.branches.branch_for_layer import branch_class
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch


class GramCollector:
    """Sums x x^T and x over the inputs x of a model's linear layers, by forward pre-hooks.

    Layers that share one input tensor, such as query, key and value projections, share one sum.

    Parameters
    ----------
    model : nn.Module
        The model. It is not changed, and has hooks only inside of `watching`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            f"{name}.weight" if name else "weight": module
            for name, module in model.named_modules()
            if branch_class(module) in (LinearBranch, Conv1DBranch)
        }
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._same: dict[str, str] = {}
        self._inputs: dict[int, tuple[Tensor, str]] = {}
        self._mask: Tensor | None = None

    @contextmanager
    def watching(self, mask: Tensor | None = None) -> Iterator[None]:
        """Return a context manager that adds the layer inputs of one call of the model.

        Parameters
        ----------
        mask : [samples, tokens], optional
            The attention mask: 0 for padding, which is left out. Images have none.
        """
        self._mask = mask
        hooks = [
            module.register_forward_pre_hook(partial(self._add_inputs, name), with_kwargs=True)
            for name, module in self._layers.items()
        ]
        try:
            yield
        finally:
            self._inputs.clear()
            for hook in hooks:
                hook.remove()

    def _add_inputs(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Add the inputs of a layer, unless they are the very tensor that another layer was given before."""
        # The only input of a layer, by position or by name.
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        # The tensor is held until the call ends, so that no other one is given its id.
        _, first = self._inputs.setdefault(id(x), (x, name))
        # A layer that shares its input in the first call shares the sum from then on.
        if name not in self._sums:
            self._same.setdefault(name, first)
        if self._same[name] == name:
            self._add(name, unpadded_rows(x.detach(), self._mask).double())

    def _add(self, name: str, rows: Tensor) -> None:
        # Sums of x x^T and x over rows x, in float64.
        moment, total, count = self._sums.get(name, (0.0, 0.0, 0))
        self._sums[name] = moment + rows.T @ rows, total + rows.sum(0), count + len(rows)

    def grams(self) -> GramSet:
        """Return the Gram matrices so far, under the model's names of its weights."""
        found = {
            name: Gram((moment / max(1, count)).cpu(), (total / max(1, count)).cpu(), count)
            for name, (moment, total, count) in self._sums.items()
        }
        shared = {name: first for name, first in self._same.items() if first != name and first in found}
        # Layers with weights [d_in, d_out].
        input_first = [name for name, module in self._layers.items() if branch_class(module) is Conv1DBranch]
        return GramSet(found, shared, frozenset(input_first))


def collect_grams(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> GramSet:
    """Return the Gram matrices of the inputs of all linear layers of a model.

    `dtscodec.collect` does the same for a model directory and samples, and writes the file.

    Parameters
    ----------
    model : nn.Module
        Any model; it is called without gradients.
    batches : iterable of mapping
        Keyword arguments of each call. ``attention_mask``, if there is one, marks padding.

    Returns
    -------
    GramSet
        Under the model's names of its weights; `dtscodec.save_grams` writes it.
    """
    collector = GramCollector(model)
    for batch in batches:
        with torch.no_grad(), collector.watching(batch.get("attention_mask")):
            model(**batch)
    return collector.grams()


def unpadded_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the inputs or outputs of a layer as [rows, features], without the rows of padding.

    Parameters
    ----------
    values : [..., features]
        Inputs or outputs of one call.
    mask : [samples, tokens], optional
        0 for padding. It is ignored for a layer whose rows are not the tokens, such as one after pooling.
    """
    flat = values.reshape(-1, values.shape[-1])
    return flat[mask.flatten().bool()] if mask is not None and len(flat) == mask.numel() else flat
