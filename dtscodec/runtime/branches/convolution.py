"""Side branch of convolutions: y += (x * v) * (u s) for each request's task, the second convolution being 1 x 1."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dtscodec.decoding.reconstruct import LoadedTensor
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.reference import wide_dtype
from dtscodec.kernels.unpack import unpack_factors
from dtscodec.runtime.branches.branch import SideBranch, check_same_shape, single_factors
from dtscodec.runtime.branches.request_batch import RequestBatch
from dtscodec.runtime.resident_pack import ResidentPack

CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}


class ConvolutionBranch(SideBranch):
    """Side branch of zero-padded `nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d`: weight [out, in / groups, ...], bias [out]."""

    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Check that a task's weight or bias has the shape of the layer's."""
        check_same_shape(self.slots[attribute], entry)

    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Add the convolution of the input with each task's delta."""
        if x.dim() < len(self.slots["weight"].shape):  # A single image has no dimension of requests.
            return self.forward(x[None], out[None], batch)[0]
        leading = x.shape[:1]
        for group, change, rows in self.changes("weight", batch, leading):
            out[rows] += self._convolve_delta(x[rows], group.resident, change)
        for group, change, rows in self.changes("bias", batch, leading):
            delta = self.delta("bias", group.resident, change)
            out[rows] += delta.view(-1, *[1] * (out.dim() - 2))
        return out

    def _convolve_delta(self, x: Tensor, resident: ResidentPack, change: LoadedTensor) -> Tensor:
        """Return the convolution with a task's delta, by its factors where it has them."""
        layer = self.module
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        convolve = next(function for kind, function in CONVOLUTIONS.items() if isinstance(layer, kind))
        geometry: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        factors = single_factors(change)
        if factors is None or not factors.is_whole or layer.groups > 1:
            # Without factors, with a subset coded, or grouped: form the delta.
            delta = self.delta("weight", resident, change).to(x.dtype)
            return convolve(x, delta, groups=layer.groups, **geometry)
        left, right = unpack_factors(factors, wide_dtype(x.dtype))
        # delta = (u s) v^T over [out, in * kernel]: v are filters with `rank` outputs, u s mixes them at each position.
        inner = convolve(x.to(left.dtype), right.view(-1, *change.entry.spec.shape[1:]), **geometry)
        return convolve(inner, left.T.reshape(-1, len(left), *[1] * (x.dim() - 2)))
