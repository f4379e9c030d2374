"""Tensors in memory, of torch or numpy, as a checkpoint."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from dtscodec.checkpoints.checkpoint import Signature
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_spec
from dtscodec.errors import CheckpointError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.primitives.safetensors_header import check_name
from dtscodec.format.weight_files import DEFAULT_STEM
from dtscodec.messages import listed

if TYPE_CHECKING:
    import torch

_NUMPY_NAMES: dict[str, DType] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
"""numpy's names of dtypes, including those of the package ml_dtypes."""


class MappingCheckpoint:
    """A `Checkpoint` over a mapping of names to torch tensors or numpy arrays.

    Parameters
    ----------
    tensors : mapping
        Name -> tensor. It is not copied, and must not change while the checkpoint is in use.
    location : str
        Name of the mapping, for messages.

    Raises
    ------
    CheckpointError
        An entry is not a tensor, or not a dense array of plain elements.
    """

    def __init__(self, tensors: Mapping[str, Any], location: str = "the mapping") -> None:
        self.location = location
        self.directory: Path | None = None
        self.is_directory = False
        self.stem = DEFAULT_STEM
        self.folders: tuple[str, ...] = ()
        self.passed_over: tuple[PassedOverFile, ...] = ()
        self.staging: Path | None = None
        self.weight_files = frozenset[str]()
        self.metadata: Mapping[str, str] = {}
        _check_entries(tensors, location)
        self._tensors: Mapping[str, Any] = {name: tensors[name] for name in sorted(tensors)}
        self.specs = {name: _spec(t, f"{location}: {name!r}") for name, t in self._tensors.items()}
        self.aliases = find_aliases(self._tensors)

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor: uint8 [nbytes], a read-only view where possible."""
        tensor = self._tensors[name]
        return _array_bytes(tensor) if isinstance(tensor, np.ndarray) else tensor_bytes(tensor)

    def prefetch(self, name: str) -> None:
        """Do nothing: it is in memory."""

    def signature(self, name: str) -> Signature | None:
        """Return None: memory may change at any time."""
        return None

    def close(self) -> None:
        """Release the tensors."""
        self._tensors = {}

    def __enter__(self) -> "MappingCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_aliases(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Return tensors that are equal views of the same memory: later name -> first name.

    Parameters
    ----------
    tensors : mapping
        Name -> tensor, of torch or numpy. A view of a part of another tensor's memory is no alias.
    """
    first: dict[object, str] = {}
    result = {}
    for name, tensor in tensors.items():
        key = _memory(tensor)
        if key is not None and (original := first.setdefault(key, name)) != name:
            result[name] = original
    return result


def is_tensor(value: object) -> bool:
    """Return whether a value is a numpy array or a torch tensor; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def _memory(tensor: "np.ndarray[Any, Any] | torch.Tensor") -> object:
    """Return a key that is equal for views of the same memory in the same way; None for empty tensors."""
    if isinstance(tensor, np.ndarray):
        return (tensor.ctypes.data, tensor.shape, tensor.strides, tensor.dtype.str) if tensor.size else None
    if not tensor.numel():
        return None
    # Lazy conjugation and negation: other values on the same memory.
    signs = tensor.is_conj(), tensor.is_neg()
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, signs


def _check_entries(tensors: Mapping[str, Any], location: str) -> None:
    odd = [f"{name!r} ({type(t).__name__})" for name, t in tensors.items() if not is_tensor(t)]
    if odd:
        raise CheckpointError(f"{location}: expected tensors only, got {listed(odd, 5)}")
    for name in tensors:
        if not isinstance(name, str):
            raise CheckpointError(f"{location}: expected names that are strings, got {name!r}")
        check_name(name, location)


def _spec(tensor: Any, where: str) -> TensorSpec:
    try:
        return _array_spec(tensor) if isinstance(tensor, np.ndarray) else tensor_spec(tensor)
    except CheckpointError as e:
        raise CheckpointError(f"{where}: {e.problem}", e.remedy) from e


def _array_spec(array: "np.ndarray[Any, Any]") -> TensorSpec:
    code = _NUMPY_NAMES.get(array.dtype.name)
    if code is None:
        raise CheckpointError(f"expected a dtype that safetensors knows, got numpy's {array.dtype}")
    try:
        return TensorSpec(code, array.shape)
    except ValueError as e:
        raise CheckpointError(str(e)) from e


def _array_bytes(array: "np.ndarray[Any, Any]") -> Bytes:
    # Swaps the bytes of big-endian arrays; others are not copied.
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    result: Bytes = np.ascontiguousarray(little).reshape(-1).view(np.uint8).view()
    result.flags.writeable = False
    return result
