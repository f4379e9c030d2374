"""The layers of a model one after the other, and the inputs of their linear modules while the weights change."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """Inputs of a decoder layer.

    Parameters
    ----------
    hidden : Tensor
        Hidden states, [texts, tokens, features].
    arguments : dict
        What else the layer is called with.
    mask : Tensor
        Which tokens are no padding, bool [texts, tokens].
    """

    hidden: Tensor
    arguments: dict[str, Any]
    mask: Tensor


def first_batches(model: Any, inputs: Sequence[Mapping[str, Tensor]]) -> list[Batch]:
    """Return the inputs of the first layer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model whose layers are ``model.model.layers``.
    inputs : sequence of mapping of str to Tensor
        Token ids and attention masks.
    """
    found = []
    for batch in inputs:
        (hidden, *_), arguments = _captured(model.model.layers[0], partial(model.model, **batch, use_cache=False))
        found.append(Batch(hidden, arguments, batch["attention_mask"].bool()))
    return found


class Layer:
    """A decoder layer, and its inputs by a model whose earlier layers are final.

    Parameters
    ----------
    module : torch.nn.Module
        The layer.
    batches : sequence of Batch
        Its inputs.
    """

    def __init__(self, module: nn.Module, batches: Sequence[Batch]) -> None:
        self._module, self._batches = module, batches

    def moments(self, name: str) -> Tensor:
        """Return the mean of x x^T over the inputs x of a linear module with the weights as they are now.

        Parameters
        ----------
        name : str
            The module, such as "self_attn.q_proj".

        Returns
        -------
        Tensor
            [features, features], float32.
        """
        linear, total, count = self._module.get_submodule(name), torch.zeros(()), 0
        for batch in self._batches:
            (inputs,), _ = _captured(linear, partial(self._run, batch))
            rows = inputs[batch.mask].float()
            with torch.autocast("cpu", enabled=False):
                total, count = total + rows.T @ rows, count + len(rows)
        return total / count

    def add(self, name: str, delta: Tensor) -> None:
        """Add a delta to the weight of a linear module."""
        weight: Any = self._module.get_submodule(name).weight
        weight += delta

    def outputs(self) -> list[Batch]:
        """Return the inputs of the next layer."""
        return [batch._replace(hidden=self._run(batch)) for batch in self._batches]

    def _run(self, batch: Batch) -> Tensor:
        hidden: Tensor = self._module(batch.hidden, **batch.arguments)
        return hidden


class _Reached(Exception):
    """The module whose inputs are wanted was reached."""


def _captured(module: nn.Module, run: Callable[[], object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that a module is called with in a run, which ends there."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append((positional, named))
        raise _Reached

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    with contextlib.suppress(_Reached):
        run()
    handle.remove()
    return found[0]
