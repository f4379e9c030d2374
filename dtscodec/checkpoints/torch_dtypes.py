"""torch's dtypes and tensors <-> dtype codes of safetensors and bytes. torch is imported on first use only."""

import functools
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from dtscodec.errors import CheckpointError, Remedy
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec

if TYPE_CHECKING:
    import torch

_TORCH_NAMES: dict[DType, str] = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_x2",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""torch's name of each dtype. torch has no six-bit floats."""


@functools.cache
def _codes() -> dict["torch.dtype", DType]:
    import torch

    return {getattr(torch, name): code for code, name in _TORCH_NAMES.items() if hasattr(torch, name)}


def widest(dtypes: Collection[DType]) -> DType:
    """Return the only dtype of a collection, or the narrowest that holds the values of all.

    Parameters
    ----------
    dtypes : collection of DType
        At least one; if several, all of floating point.

    Examples
    --------
    >>> widest({"F16", "BF16"}), widest({"F32"})
    ('F32', 'F32')
    """
    if len(dtypes) == 1:
        return next(iter(dtypes))
    import torch

    return dtype_code(functools.reduce(torch.promote_types, map(torch_dtype, dtypes)))


def dtype_code(dtype: "torch.dtype") -> DType:
    """Return the code of a torch dtype; the inverse of `torch_dtype`.

    Parameters
    ----------
    dtype : torch.dtype
        The dtype.

    Raises
    ------
    CheckpointError
        safetensors has no such dtype.
    """
    try:
        return _codes()[dtype]
    except KeyError:
        raise CheckpointError(f"expected a dtype that safetensors knows, got {dtype}") from None


@functools.cache
def torch_dtype(code: DType) -> "torch.dtype":
    """Return the torch dtype of a code; the inverse of `dtype_code`.

    Parameters
    ----------
    code : DType
        A dtype of safetensors, such as ``"BF16"``.

    Raises
    ------
    CheckpointError
        torch has no such dtype.
    """
    import torch

    dtype: torch.dtype | None = getattr(torch, _TORCH_NAMES.get(code, ""), None)
    if dtype is None:
        raise CheckpointError(f"expected a dtype that torch has, got {code}")
    return dtype


def tensor_spec(tensor: "torch.Tensor") -> TensorSpec:
    """Return dtype and shape of a tensor; the inverse of `torch_form`.

    torch counts four-bit elements in pairs; the shape counts elements.

    Parameters
    ----------
    tensor : torch.Tensor
        The tensor; it is not read.

    Raises
    ------
    CheckpointError
        The tensor is not a dense array of plain elements, of an unknown dtype, or beyond the format's limits.
    """
    _check_kind(tensor)
    code = dtype_code(tensor.dtype)
    shape = tuple(tensor.shape)
    if code == "F4":
        if not shape:
            raise CheckpointError("expected four-bit elements in pairs, got a tensor of no dimensions")
        shape = (*shape[:-1], 2 * shape[-1])
    try:
        return TensorSpec(code, shape)
    except ValueError as e:
        raise CheckpointError(str(e)) from e


def torch_form(spec: TensorSpec) -> "tuple[torch.dtype, tuple[int, ...]]":
    """Return dtype and shape of torch's tensor for a spec; the inverse of `tensor_spec`.

    Parameters
    ----------
    spec : TensorSpec
        Dtype and shape in elements.

    Raises
    ------
    CheckpointError
        torch has no such dtype, or cannot pair four-bit elements because rows have an odd number of them.
    """
    dtype = torch_dtype(spec.dtype)
    if spec.dtype != "F4":
        return dtype, spec.shape
    if spec.shape[-1] % 2:
        raise CheckpointError(f"expected rows of an even number of four-bit elements for torch, got {spec}")
    return dtype, (*spec.shape[:-1], spec.shape[-1] // 2)


def tensor_bytes(tensor: "torch.Tensor") -> Bytes:
    """Return the little-endian bytes of a tensor in C order; the inverse of `tensor_from_bytes`.

    Parameters
    ----------
    tensor : torch.Tensor
        On any device.

    Returns
    -------
    uint8 [nbytes]
        A read-only view where the tensor is contiguous and on the CPU, else a copy.

    Raises
    ------
    CheckpointError
        As for `tensor_spec`.
    """
    import torch

    _check_kind(tensor)
    # torch conjugates and negates lazily, by a flag that bytes do not have.
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # Viewed as bytes first, since numpy lacks dtypes such as bfloat16.
    result: Bytes = plain.reshape(-1).view(torch.uint8).numpy().view()
    result.flags.writeable = False
    return result


def tensor_from_bytes(array: Bytes, spec: TensorSpec) -> "torch.Tensor":
    """Return a tensor over the bytes of an array, without a copy; the inverse of `tensor_bytes`.

    Parameters
    ----------
    array : uint8 [spec.nbytes]
        C-contiguous. If it is read-only, the tensor must not be written to, which torch cannot prevent.
    spec : TensorSpec
        Dtype and shape.

    Raises
    ------
    CheckpointError
        As for `torch_form`.
    """
    import torch

    dtype, shape = torch_form(spec)
    if not spec.nbytes:
        return torch.empty(shape, dtype=dtype, device="cpu")
    source: Any = array if array.flags.writeable else np.asarray(_Writable(array))
    return torch.from_numpy(source).view(dtype).reshape(shape)


class _Writable:
    """Present a read-only array as writable, since torch warns about each that is not."""

    def __init__(self, array: Bytes) -> None:
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}
        self._array = array  # Owns the memory.


def _check_kind(tensor: "torch.Tensor") -> None:
    """Refuse tensors that are not one strided array of plain elements."""
    import torch

    kind = type(tensor).__name__
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise CheckpointError(f"expected a plain torch.Tensor, got a {kind}")
    if tensor.layout != torch.strided:
        raise CheckpointError(f"expected a dense tensor, got a sparse one ({tensor.layout})", Remedy("use .to_dense()"))
    if tensor.is_quantized:
        raise CheckpointError(
            f"expected plain elements, got a quantized tensor ({tensor.dtype})", Remedy("use .dequantize()")
        )
    if tensor.is_meta:
        raise CheckpointError(
            "expected a tensor with data, got one on the meta device", Remedy("load the weights first")
        )
