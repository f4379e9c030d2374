"""Blocks + base rows -> one tensor (spec sections 6 and 8, steps 3 to 6)."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import Bytes, tensor_from_bytes, torch_dtype
from dtscodec.codec.delta import convert
from dtscodec.codec.dequantize import CodedDelta, dequantize
from dtscodec.errors import BaseMismatchError, FormatError
from dtscodec.format.blocks import BaseRows, Block, LowRank, Raw, Same, Tie, Values
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec, bits_of, plane_count
from dtscodec.format.index import TensorEntry
from dtscodec.format.planes import join_planes
from dtscodec.format.streams import Streams

ReadBase: TypeAlias = Callable[[str], tuple[TensorSpec, Bytes]]
"""Gives spec and checked bytes of a base tensor."""


def reconstruct(
    entry: TensorEntry,
    blocks: Iterable[tuple[int, Block, Streams]],
    read_base: ReadBase,
    device: torch.device,
) -> Tensor:
    """Rebuild one tensor that is no tie.

    Parameters
    ----------
    entry : TensorEntry
    blocks : iterable of (first row, block, streams)
    read_base : callable
    device : torch.device
        Where the arithmetic runs.

    Returns
    -------
    uint8 [nbytes], on the device
        The tensor's bytes.

    Raises
    ------
    FormatError
        The pack is damaged.
    BaseMismatchError
        The base does not fit (rules R1 and R2).
    """
    out = torch.empty(entry.spec.nbytes, dtype=torch.uint8, device=device)
    base = _BaseOf(entry, read_base, device)
    for row, block, streams in blocks:
        part = out[row_span(entry.spec, entry.columns, row, block.height)]
        if isinstance(block, Raw):
            part.copy_(_as_tensor(_raw_bytes(entry, block, streams, len(part))))
        elif isinstance(block, Same):
            part.copy_(base.same(block.base, block.height))
        elif isinstance(block, Values | LowRank):
            _write_coded(part, entry, block, streams, base)
        elif isinstance(block, Tie):
            raise TypeError(f"{entry.name} is tied to {block.to}")
    return out


def row_span(spec: TensorSpec, columns: int, first: int, height: int) -> slice:
    """Where the bytes of some rows of a tensor lie; rows of four and six bits may fill bytes only together."""
    bits = columns * bits_of(spec.dtype)
    return slice(first * bits // 8, (first + height) * bits // 8)


class _BaseOf:
    """The rows of the base that the blocks of one tensor ask for, on a device. Reads each base tensor once."""

    def __init__(self, entry: TensorEntry, read_base: ReadBase, device: torch.device) -> None:
        self._entry, self._read_base, self._device = entry, read_base, device
        self._read: dict[str, tuple[TensorSpec, Tensor]] = {}

    def same(self, base: BaseRows | None, height: int) -> Tensor:
        """Rows converted to the tensor's dtype, as bytes."""
        target = self._entry.spec
        if base is None:
            return torch.zeros((), dtype=torch.uint8, device=self._device)
        spec, data = self._rows(base, height)
        if spec.dtype == target.dtype:
            return data
        if not {spec.dtype, target.dtype} <= CODED_DTYPES:
            raise self._misfit(base, f"expected {target.dtype}, got {spec.dtype}", "R2")
        return convert(data.view(torch_dtype(spec.dtype)), target.dtype).view(torch.uint8)

    def floats(self, base: BaseRows | None, height: int) -> Tensor:
        """Rows as float32, or float64 if the tensor is F64: [height, columns]. Fresh memory or a view."""
        wide = torch.float64 if self._entry.spec.dtype == "F64" else torch.float32
        shape = (height, self._entry.columns)
        if base is None:
            return torch.zeros(shape, dtype=wide, device=self._device)
        spec, data = self._rows(base, height)
        if spec.dtype not in CODED_DTYPES:
            raise self._misfit(base, f"expected F16, BF16, F32 or F64 under a delta, got {spec.dtype}", "R2")
        return data.view(torch_dtype(spec.dtype)).to(wide).view(shape)

    def _rows(self, base: BaseRows, height: int) -> tuple[TensorSpec, Tensor]:
        """Spec of the base tensor and the bytes of some of its rows (rule R1)."""
        if base.name not in self._read:
            spec, data = self._read_base(base.name)
            self._read[base.name] = spec, _as_tensor(data).to(self._device)
        spec, bytes_ = self._read[base.name]
        split = self._entry.split
        rows, columns = spec.matrix(split)
        too_flat = len(spec.shape) < split if self._entry.spec.shape else bool(spec.shape)
        if too_flat or columns != self._entry.columns or base.first + height > rows:
            wanted = f"{base.first + height} rows of {self._entry.columns}"
            raise self._misfit(base, f"expected at least {wanted}, got {spec}", "R1")
        return spec, bytes_[row_span(spec, columns, base.first, height)]

    def _misfit(self, base: BaseRows, detail: str, rule: str) -> BaseMismatchError:
        return BaseMismatchError("base-tensor", f"{base.name} for {self._entry.name}", detail, "4.4")


def _as_tensor(data: Bytes) -> Tensor:
    return tensor_from_bytes(data, TensorSpec("U8", (len(data),)))


def _raw_bytes(entry: TensorEntry, block: Raw, streams: Streams, size: int) -> Bytes:
    if block.planes is None:
        return np.frombuffer(streams.raw, np.uint8)
    try:
        return join_planes(streams.raw, block.planes, size, plane_count(entry.spec.dtype))
    except ValueError as error:
        raise FormatError("zstd", entry.name, str(error), "5.4") from error


def _write_coded(part: Tensor, entry: TensorEntry, block: Values | LowRank, streams: Streams, base: _BaseOf) -> None:
    """Write W = B + delta into the bytes of a block's rows; what is not coded is the base, converted."""
    wide = np.float64 if entry.spec.dtype == "F64" else np.float32
    coded = dequantize(block, entry.columns, streams, wide)
    weights = part.view(torch_dtype(entry.spec.dtype)).view(block.height, entry.columns)
    floats = base.floats(block.base, block.height)
    delta = _dense(coded, part.device)
    if coded.rows is None and coded.cols is None:
        weights.copy_(delta.add_(floats))
        return
    part.copy_(base.same(block.base, block.height))
    where = tuple(torch.from_numpy(axis).to(part.device) for axis in coded.where(block.height, entry.columns))
    weights[where] = (floats[where] + delta).to(weights.dtype)


def _dense(coded: CodedDelta, device: torch.device) -> Tensor:
    left = torch.from_numpy(np.ascontiguousarray(coded.left)).to(device)
    if coded.right is None:
        return left
    return left @ torch.from_numpy(np.ascontiguousarray(coded.right)).to(device)
