"""The side path of normalizations: y += x' dw + db, x' the normalized input, for each row's task."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtscodec.format.index import TensorEntry
from dtscodec.kernels.reference import wide_dtype
from dtscodec.runtime.branches.branch import SideBranch, check_same_shape
from dtscodec.runtime.request_batch import RequestBatch


class NormBranch(SideBranch):
    """Of layers whose output is x' w + b, or x' (1 + w) + b: `normalize` gives x'."""

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Weights and biases as the layer has them."""
        check_same_shape(self.slots[attribute], entry)

    def normalize(self, x: Tensor) -> Tensor:
        """The normalized input, before weight and bias."""
        raise NotImplementedError

    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Add what each task's weight and bias add."""
        leading = x.shape[: x.dim() - len(self.slots["weight"].shape)]
        rest = x.shape[len(leading) :]
        flat_x, flat = x.reshape(-1, *rest), out.reshape(-1, *rest)
        for group, change, rows in self.changes("weight", batch, leading):
            delta = self.delta("weight", group.resident, change)
            flat[rows] += self.normalize(flat_x[rows]).to(delta.dtype) * delta
        for group, change, rows in self.changes("bias", batch, leading):
            flat[rows] += self.delta("bias", group.resident, change)
        return flat.view(out.shape)


class LayerNormBranch(NormBranch):
    """Of `nn.LayerNorm`."""

    def normalize(self, x: Tensor) -> Tensor:
        """Mean zero, variance one."""
        layer = self.module
        assert isinstance(layer, nn.LayerNorm)
        return F.layer_norm(x, layer.normalized_shape, eps=layer.eps)


class RMSNormBranch(NormBranch):
    """Of `nn.RMSNorm` and of the layers that transformers calls so."""

    def normalize(self, x: Tensor) -> Tensor:
        """Mean square one."""
        return rms_normalized(self.module, x)


def rms_normalized(layer: nn.Module, x: Tensor) -> Tensor:
    """The input over its root mean square, over as many dimensions as the weight has."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    eps = next(
        (value for name in ("variance_epsilon", "eps") if (value := getattr(layer, name, None)) is not None), None
    )
    return F.rms_norm(x.to(wide_dtype(x.dtype)), tuple(weight.shape), eps=eps).to(x.dtype)


@torch.no_grad()
def is_rms_norm(layer: nn.Module) -> bool:
    """Whether a layer does what its name says: its output less x' w is 0, or x'."""
    weight = getattr(layer, "weight", None)
    if (
        not type(layer).__name__.endswith("RMSNorm")
        or not isinstance(weight, Tensor)
        or getattr(layer, "bias", None) is not None
    ):
        return False
    x = torch.linspace(-2, 3, 2 * weight.numel(), device=weight.device, dtype=weight.dtype).view(2, *weight.shape)
    return any(all(_is_so(layer, x * scale, plus) for scale in (1e-3, 1.0, 30.0)) for plus in (0.0, 1.0))


def _is_so(layer: nn.Module, x: Tensor, plus: float) -> bool:
    """Whether a layer's output is the normalized input times its weight plus a number."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    expected = rms_normalized(layer, x).float() * (weight.float() + plus)
    return bool((layer(x).float() - expected).abs().max() <= 0.02 * expected.abs().max() + 1e-6)
