"""Writing files for `torch.load`, one tensor at a time.

The format of `torch.save` since torch 1.6 is a zip archive without compression. It has `data.pkl`, a pickle of the
mapping in which tensors refer to storages by key, and the bytes of each storage as `data/<key>`. The pickle comes first
and needs no data, so only the tensor being written is in memory; `torch.save` itself needs all of them. Storages begin
at multiples of 64 bytes, so that they can be mapped. Source: torch 2.13, `serialization.py`.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from dtscodec.checkpoints.torch_dtypes import torch_form
from dtscodec.errors import CheckpointError, OutputError, Remedy
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec

_ALIGNMENT = 64
_ROOT = "archive"
_PIECE = 2**24
"""Bytes that are written at a time."""

_LARGE = 2**31 - 1
"""Most bytes of a record without zip64 fields."""

_PADDING_ID = 0x4246
"""Id of the zip extra field that pads, the same as torch uses ("FB")."""

_STORAGES: dict[DType, str] = {
    "BOOL": "BoolStorage",
    "U8": "ByteStorage",
    "I8": "CharStorage",
    "I16": "ShortStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I32": "IntStorage",
    "F32": "FloatStorage",
    "C64": "ComplexFloatStorage",
    "F64": "DoubleStorage",
    "I64": "LongStorage",
}
"""torch's storage class of each older dtype; newer dtypes have untyped storages."""


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    spec: TensorSpec


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage


def write_torch_archive(
    file: BinaryIO,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], Bytes],
    ties: Mapping[str, str],
) -> None:
    """Write a mapping of tensors in the given order; `torch.load` with `weights_only` is the inverse.

    Parameters
    ----------
    file : BinaryIO
        Open for writing, seekable, empty.
    specs : mapping
        Specs of all tensors by name.
    read : callable
        Takes a name and returns the tensor's bytes, uint8 [nbytes]. It is called once per tensor that is not in `ties`.
    ties : mapping
        Name -> name of the tensor that owns the storage.

    Raises
    ------
    OutputError
        torch has no such dtype.
    """
    _check_forms(specs)
    # Tied tensors refer to the storage of the tensor that owns it.
    owners = [name for name in specs if name not in ties]
    storages = {name: _Storage(str(i), specs[name]) for i, name in enumerate(owners)}
    tensors = {name: _Tensor(storages[ties.get(name, name)]) for name in specs}
    with zipfile.ZipFile(file, "w") as archive:
        # The pickle first: it needs specs only. Then one tensor at a time.
        _add(archive, file, "data.pkl", memoryview(_pickle(tensors)))
        _add(archive, file, "byteorder", memoryview(b"little"))
        for name, storage in storages.items():
            _add(archive, file, f"data/{storage.key}", read(name).data)
        _add(archive, file, "version", memoryview(b"3\n"))


def _check_forms(specs: Mapping[str, TensorSpec]) -> None:
    for name, spec in specs.items():
        try:
            torch_form(spec)
        except CheckpointError as e:
            raise OutputError(f"{name!r}: {e.problem}", Remedy("write safetensors instead")) from e


class _Pickler(pickle.Pickler):
    """Pickle placeholders in the way that torch pickles tensors and storages."""

    def persistent_id(self, obj: Any) -> Any:
        import torch

        if not isinstance(obj, _Storage):
            return None
        # Typed storages count elements, untyped ones bytes.
        if obj.spec.dtype in _STORAGES:
            return "storage", getattr(torch, _STORAGES[obj.spec.dtype]), obj.key, "cpu", obj.spec.elements
        return "storage", torch.UntypedStorage, obj.key, "cpu", obj.spec.nbytes

    def reducer_override(self, obj: Any) -> Any:
        import torch

        if not isinstance(obj, _Tensor):
            return NotImplemented
        spec = obj.storage.spec
        dtype, shape = torch_form(spec)
        hooks: OrderedDict[str, object] = OrderedDict()
        common = (obj.storage, 0, shape, _strides(shape), False, hooks)
        if spec.dtype in _STORAGES:
            return torch._utils._rebuild_tensor_v2, common
        # v3 also takes the dtype, which an untyped storage does not have.
        return torch._utils._rebuild_tensor_v3, (*common, dtype)


def _pickle(tensors: Mapping[str, _Tensor]) -> bytes:
    buffer = io.BytesIO()
    # `torch.save` uses protocol 2 by default.
    _Pickler(buffer, protocol=2).dump(tensors)
    return buffer.getvalue()


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous tensor."""
    result, step = [], 1
    for n in reversed(shape):
        result.append(step)
        step *= max(n, 1)
    return tuple(reversed(result))


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: memoryview) -> None:
    """Add one record; its bytes begin at a multiple of 64."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")
    large = data.nbytes > _LARGE
    # Local header (30 bytes), name, zip64 field (20), and the header of the padding field (4).
    start = file.tell() + 30 + len(info.filename) + (20 if large else 0) + 4
    padding = -start % _ALIGNMENT
    info.extra = struct.pack(f"<HH{padding}x", _PADDING_ID, padding)
    with archive.open(info, "w", force_zip64=large) as record:
        for at in range(0, data.nbytes, _PIECE):
            record.write(data[at : at + _PIECE])
