"""Layers whose weights get no gradient of their own: what autograd knows of it goes to `WeightGradient`."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtscodec.calibration.weight_gradients import WeightGradient
from dtscodec.runtime.branches.branch import SideBranch
from dtscodec.runtime.branches.branch_for_layer import branch_class
from dtscodec.runtime.branches.embedding import EmbeddingBranch
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch

_KINDS = LinearBranch, Conv1DBranch, EmbeddingBranch

AddProduct: TypeAlias = Callable[[Tensor, Tensor], None]
"""Takes the inputs of a linear layer, [t, inputs], and the gradient of its outputs, [t, outputs]."""


def can_be_fitted(owners: Iterable[tuple[nn.Module, str]]) -> bool:
    """Return whether all layers that have a weight compute a function whose gradient `fit_layer` knows.

    Parameters
    ----------
    owners : iterable of (module, str)
        Modules with the attribute that holds the weight.
    """
    return all(attribute == "weight" and _kind(module) in _KINDS for module, attribute in owners)


def _kind(layer: nn.Module) -> type[SideBranch] | None:
    # Other layers may be called on a probe to find their kind, which takes time and needs their weights.
    is_known = isinstance(layer, nn.Linear | nn.Embedding) or type(layer).__name__ == "Conv1D"
    return branch_class(layer) if is_known else None


def fit_layer(layer: Any, gradient: WeightGradient) -> None:
    """Replace the `forward` of a layer, so that its backward pass gives the gradient of its weight to `gradient`.

    Parameters
    ----------
    layer : nn.Module
        A layer for which `can_be_fitted` holds. Its weight must not require a gradient.
    gradient : WeightGradient
        The gradient of its weight.
    """
    kind = _kind(layer)
    # A function without any input that requires a gradient would not take part in the backward pass.
    anchor = torch.zeros((), device=layer.weight.device, requires_grad=True)
    if kind is EmbeddingBranch:
        layer.forward = lambda ids: _Lookup.apply(ids, anchor, layer, gradient)  # type: ignore[no-untyped-call]
        return
    is_transposed = kind is Conv1DBranch

    def weight() -> Tensor:
        found: Tensor = layer.weight.detach()
        return found.T if is_transposed else found

    add = (lambda x, dy: gradient.add_product(dy, x)) if is_transposed else gradient.add_product
    layer.forward = lambda x: _Product.apply(x, layer.bias, anchor, weight, add)  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    """y = x W^T + b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, anchor: Tensor, weight: Callable[[], Tensor], add: AddProduct
    ) -> Tensor:
        """Compute in the dtype of the weight."""
        matrix = weight()
        x = x.to(matrix.dtype)
        ctx.save_for_backward(x)
        # Not the weight itself, whose memory may be needed for another layer's until the backward pass.
        ctx.weight, ctx.add = weight, add
        return F.linear(x, matrix, None if bias is None else bias.to(matrix.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return the gradients of x and b."""
        (x,) = ctx.saved_tensors
        matrix = ctx.weight()
        dy = dy.to(matrix.dtype)
        flat = dy.reshape(-1, dy.shape[-1])
        ctx.add(x.reshape(-1, x.shape[-1]), flat)
        dx = dy @ matrix if ctx.needs_input_grad[0] else None
        db = flat.sum(0, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        return dx, db, None, None, None


class _Lookup(torch.autograd.Function):
    """Rows of an embedding, in float32."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, anchor: Tensor, layer: nn.Embedding, gradient: WeightGradient) -> Tensor:
        """Look rows up."""
        ctx.save_for_backward(ids)
        ctx.padding, ctx.gradient = layer.padding_idx, gradient
        return F.embedding(ids, layer.weight.detach()).float()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[None, None, None, None]:
        """Give the gradient of the rows away; that of padding does not count, as in torch."""
        (ids,) = ctx.saved_tensors
        ids, rows = ids.reshape(-1), dy.reshape(-1, dy.shape[-1]).float()
        if ctx.padding is not None:
            rows = rows * (ids != ctx.padding)[:, None]
        ctx.gradient.add_rows(ids, rows)
        return None, None, None, None
