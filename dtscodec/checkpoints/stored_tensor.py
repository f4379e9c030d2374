"""A tensor as a checkpoint stores it, as a torch tensor, and its conversion to other dtypes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes, torch_dtype
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a checkpoint stores it.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        Dtype and shape.
    data : uint8 [nbytes]
        The exact bytes.
    """

    name: str
    spec: TensorSpec
    data: Bytes

    def cut(self, begin: int, end: int) -> "StoredTensor":
        """Return the part from index `begin` to `end` of the first dimension, over the same bytes."""
        step = self.spec.nbytes // max(1, self.spec.shape[0])
        spec = TensorSpec(self.spec.dtype, (end - begin, *self.spec.shape[1:]))
        return StoredTensor(self.name, spec, self.data[begin * step : end * step])

    def tensor(self) -> Tensor:
        """Return the tensor, over the same bytes."""
        return tensor_from_bytes(self.data, self.spec)


def convert_dtype(tensor: Tensor, dtype: DType) -> Tensor:
    """Convert a tensor as spec section 6.1 demands: F64 is rounded to F32 before it is rounded to 16 bits.

    Parameters
    ----------
    tensor : Tensor
        Of dtype F16, BF16, F32 or F64.
    dtype : DType
        The dtype to convert to, one of these.
    """
    target = torch_dtype(dtype)
    if tensor.dtype == torch.float64 and dtype in ("F16", "BF16"):
        tensor = tensor.to(torch.float32)
    return tensor.to(target)


def is_finite(tensor: Tensor) -> bool:
    """Return whether no element of a tensor is NaN or infinite."""
    # A finite sum implies finite terms, and needs no memory. It may overflow; elements are checked one by one then.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
