"""Side branch of embeddings: y[i] += (u[id] s) v^T for the task of each id."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtscodec.errors import ModelMismatchError
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.backend import Share
from dtscodec.kernels.reference import wide_dtype
from dtscodec.runtime.branches.branch import SideBranch, check_same_shape, has_single_input, is_additive, single_factors
from dtscodec.runtime.branches.request_batch import ONE_FOR_ALL, RequestBatch


class EmbeddingBranch(SideBranch):
    """Side branch of `nn.Embedding`: weight [vocabulary, width]."""

    @property
    def scale(self) -> float:
        """The factor that the layer multiplies rows by."""
        return 1.0

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Check that a task's weight has the layer's shape: its vocabulary too, since the layer looks up every id."""
        check_same_shape(self.slots[attribute], entry)

    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Add the looked-up rows of each task's delta."""
        # One-dimensional ids have no dimension of requests: all requests share the rows looked up.
        if batch.size is not None and x.dim() == 1:
            self._check_unused(x, batch)
            return out
        if batch.size is not None and batch.size > 1 and x.shape[0] == 1:  # Position ids, which all requests share.
            x, out = x.expand(batch.size, *x.shape[1:]), out.expand(batch.size, *out.shape[1:]).clone()
        ids, flat = x.reshape(-1), out.reshape(-1, out.shape[-1])
        scale = self.scale
        # Factors go to the backend in one call; other tensors are formed, then looked up.
        shares = []
        for group, change, rows in self.changes("weight", batch, x.shape):
            if (factors := single_factors(change)) is not None:
                shares.append(Share(factors, rows))
            elif not is_additive(change.entry):
                own = F.embedding(ids[rows], self.rebuild(group.resident, change)).to(flat.dtype)
                flat[rows] = own * scale
            else:
                flat[rows] += F.embedding(ids[rows], self.delta("weight", group.resident, change)) * scale
        if shares and scale != 1:  # The backend has no such factor.
            added = torch.zeros_like(flat, dtype=wide_dtype(flat.dtype))
            self.backend.gather(ids, shares, added)
            flat += added * scale
        else:
            self.backend.gather(ids, shares, flat)
        return flat.view(out.shape)

    def _check_unused(self, ids: Tensor, batch: RequestBatch) -> None:
        """Raise ModelMismatchError if a task changes an embedding from which all requests share rows."""
        slot = self.slots["weight"]
        if any(slot in group.resident.changes for group in batch.groups):
            detail = f"expected ids of {batch.size} requests, got {list(ids.shape)} ids for all of them"
            raise ModelMismatchError(f"{slot.name}: {detail}", ONE_FOR_ALL)


class ScaledEmbeddingBranch(EmbeddingBranch):
    """Side branch of embeddings that multiply rows by their `embed_scale`, as in Gemma and Bart."""

    @functools.cached_property
    def scale(self) -> float:
        """The factor that the layer multiplies rows by."""
        return _scale_of(self.module)


def _scale_of(layer: Any) -> float:
    """Return the `embed_scale` of an embedding; a tensor is converted to the weight's dtype first, as layers do it."""
    scale = layer.embed_scale
    return float(scale.to(layer.weight.dtype) if isinstance(scale, Tensor) else scale)


@torch.no_grad()
def is_scaled_embedding(layer: nn.Module) -> bool:
    """Return whether a subclass of `nn.Embedding` looks rows up and multiplies them by its `embed_scale`.

    The layer is called on up to 64 ids.

    Parameters
    ----------
    layer : nn.Module
        Any layer.
    """
    scale = getattr(layer, "embed_scale", None)
    if not isinstance(layer, nn.Embedding) or not isinstance(scale, Tensor | float | int) or layer.weight.is_meta:
        return False
    if not has_single_input(layer) or (isinstance(scale, Tensor) and scale.numel() != 1):
        return False
    some = torch.linspace(0, layer.num_embeddings - 1, 64, device=layer.weight.device).long()
    # Two rows of ids: a layer that computes its ids from the shape would give both the same.
    ids = torch.stack([some, some.flip(0)])
    found, expected = layer(ids).float(), (F.embedding(ids, layer.weight) * _scale_of(layer)).float()
    is_same = found.shape == expected.shape and torch.allclose(found, expected, rtol=0.02, atol=1e-6)
    return is_same and bool(expected.any())
