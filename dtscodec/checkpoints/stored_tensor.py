"""A tensor as a checkpoint stores it, as a torch tensor, and its conversion to other dtypes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes, torch_dtype
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a checkpoint stores it: name, spec and exact bytes (uint8 [nbytes])."""

    name: str
    spec: TensorSpec
    data: Bytes

    def cut(self, begin: int, end: int) -> "StoredTensor":
        """Some indices of the first dimension."""
        step = self.spec.nbytes // max(1, self.spec.shape[0])
        spec = TensorSpec(self.spec.dtype, (end - begin, *self.spec.shape[1:]))
        return StoredTensor(self.name, spec, self.data[begin * step : end * step])

    def tensor(self) -> Tensor:
        """The tensor itself, over the same bytes."""
        return tensor_from_bytes(self.data, self.spec)


def convert_dtype(tensor: Tensor, dtype: DType) -> Tensor:
    """Convert between F16, BF16, F32 and F64 as the spec has it (section 6.1): F64 reaches 16 bits by way of F32."""
    target = torch_dtype(dtype)
    if tensor.dtype == torch.float64 and dtype in ("F16", "BF16"):
        tensor = tensor.to(torch.float32)
    return tensor.to(target)


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    # A sum is finite only if all its terms are, and takes no memory; it may overflow, so look closer then.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
