"""Side branch of normalization layers: y += x' dw + db for each row's task, x' being the normalized input."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtscodec.format.index import TensorEntry
from dtscodec.kernels.reference import wide_dtype
from dtscodec.runtime.branches.branch import SideBranch, check_same_shape, has_single_input
from dtscodec.runtime.branches.request_batch import RequestBatch


class NormBranch(SideBranch):
    """Side branch of layers that compute x' w + b, or x' (1 + w) + b, where `normalize` computes x'."""

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Check that a task's weight or bias has the shape of the layer's."""
        check_same_shape(self.slots[attribute], entry)

    def normalize(self, x: Tensor) -> Tensor:
        """Return the normalized input, before weight and bias."""
        raise NotImplementedError

    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Add the contribution of each task's deltas of weight and bias."""
        # The last dimensions are normalized, all others are rows.
        leading = x.shape[: x.dim() - len(self.slots["weight"].shape)]
        rest = x.shape[len(leading) :]
        flat_x, flat = x.reshape(-1, *rest), out.reshape(-1, *rest)
        # x' (w + dw) + b + db = y + x' dw + db, and likewise for x' (1 + w) + b.
        for group, change, rows in self.changes("weight", batch, leading):
            delta = self.delta("weight", group.resident, change)
            flat[rows] += self.normalize(flat_x[rows]).to(delta.dtype) * delta
        for group, change, rows in self.changes("bias", batch, leading):
            flat[rows] += self.delta("bias", group.resident, change)
        return flat.view(out.shape)


class LayerNormBranch(NormBranch):
    """Side branch of `nn.LayerNorm`."""

    def normalize(self, x: Tensor) -> Tensor:
        """Return the input with mean 0 and variance 1."""
        layer = self.module
        assert isinstance(layer, nn.LayerNorm)
        return F.layer_norm(x, layer.normalized_shape, eps=layer.eps)


class RMSNormBranch(NormBranch):
    """Side branch of `nn.RMSNorm`, and of the RMSNorm classes in transformers."""

    def normalize(self, x: Tensor) -> Tensor:
        """Return the input with mean square 1."""
        return rms_normalized(self.module, x)


def rms_normalized(layer: nn.Module, x: Tensor) -> Tensor:
    """Divide an input by its root mean square.

    Parameters
    ----------
    layer : nn.Module
        The layer. The mean is over the dimensions of its weight.
    x : float [..., *weight shape]
        The layer's input.

    Returns
    -------
    Tensor
        In the input's dtype, computed in at least float32.
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    # transformers' classes call it variance_epsilon or eps; None in torch means the dtype's epsilon.
    eps = next(
        (value for name in ("variance_epsilon", "eps") if (value := getattr(layer, name, None)) is not None), None
    )
    return F.rms_norm(x.to(wide_dtype(x.dtype)), tuple(weight.shape), eps=eps).to(x.dtype)


@torch.no_grad()
def is_rms_norm(layer: nn.Module) -> bool:
    """Return whether a layer called RMSNorm or LayerNorm computes x' w, or x' (1 + w) as Gemma's does.

    The layer is called on a probe at three magnitudes, which detects an epsilon that has another name or that is added
    in another place.

    Parameters
    ----------
    layer : nn.Module
        Any layer.
    """
    weight = getattr(layer, "weight", None)
    if (
        not type(layer).__name__.endswith(("RMSNorm", "LayerNorm"))  # T5's LayerNorm is one.
        or not isinstance(weight, Tensor)
        or getattr(layer, "bias", None) is not None
        or not has_single_input(layer)  # A second one may be a gate.
    ):
        return False
    # Elements of both signs and many sizes; the scales put the epsilon above, near and below the mean square.
    x = torch.linspace(-2, 3, 2 * weight.numel(), device=weight.device, dtype=weight.dtype).view(2, *weight.shape)
    return any(all(_computes_scaled(layer, x * scale, plus) for scale in (1e-3, 1.0, 30.0)) for plus in (0.0, 1.0))


def _computes_scaled(layer: nn.Module, x: Tensor, plus: float) -> bool:
    """Return whether a layer's output is x' (w + plus), up to 2 % of the largest element."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    expected = rms_normalized(layer, x).float() * (weight.float() + plus)
    return bool((layer(x).float() - expected).abs().max() <= 0.02 * expected.abs().max() + 1e-6)
