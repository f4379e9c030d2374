"""Blocks + base rows -> one tensor (spec sections 6 and 8, steps 3 to 6)."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import Bytes, tensor_from_bytes, torch_dtype
from dtscodec.codec.delta import convert
from dtscodec.codec.dequantize import CodedDelta, dequantize
from dtscodec.errors import BaseMismatchError
from dtscodec.format.blocks import BaseRows, Block, LowRank, Raw, Same, Tie, Values
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec, bits_of
from dtscodec.format.index import TensorEntry, base_of
from dtscodec.format.parts import raw_bytes
from dtscodec.format.streams import Streams

ReadBase: TypeAlias = Callable[[str], Bytes]
"""Gives the checked bytes of a base tensor."""


def reconstruct(
    entry: TensorEntry,
    blocks: Iterable[tuple[int, Block, Streams]],
    specs: Mapping[str, TensorSpec],
    read_base: ReadBase,
    device: torch.device,
) -> Tensor:
    """Rebuild one tensor that is no tie and whose blocks fit the base (see `check_fit`).

    Parameters
    ----------
    entry : TensorEntry
    blocks : iterable of (first row, block, streams)
    specs : mapping
        The base's tensors.
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
    """
    out = torch.empty(entry.spec.nbytes, dtype=torch.uint8, device=device)
    base = _BaseOf(entry, specs, read_base, device)
    for row, block, streams in blocks:
        part = out[row_span(entry.spec, entry.columns, row, block.height)]
        if isinstance(block, Raw):
            part.copy_(_as_tensor(raw_bytes(entry, block, streams)))
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


def check_fit(entry: TensorEntry, block: Block, specs: Mapping[str, TensorSpec], location: str) -> None:
    """Raise BaseMismatchError unless the base has the rows that a block is made from (rules R1 and R2).

    Parameters
    ----------
    entry : TensorEntry
    block : Block
        One of its blocks.
    specs : mapping
        The base's tensors.
    location : str
        The base, for messages.
    """
    base = base_of(block)
    if base is None:
        return
    where = f"{location}: {base.name!r}"
    spec = specs.get(base.name)
    if spec is None:
        raise BaseMismatchError("base-tensor", where, "expected a tensor of this name, got none", "4.4")
    rows, columns = spec.matrix(entry.split)
    too_flat = len(spec.shape) < entry.split if entry.spec.shape else bool(spec.shape)
    if too_flat or columns != entry.columns or base.first + block.height > rows:
        wanted = f"expected {base.first + block.height} rows of {entry.columns}"
        raise BaseMismatchError("base-tensor", where, f"{wanted}, got {spec}", "4.4")
    convertible = {spec.dtype, entry.spec.dtype} <= CODED_DTYPES
    if not convertible and (spec.dtype != entry.spec.dtype or not isinstance(block, Same)):
        raise BaseMismatchError("base-tensor", where, f"expected {entry.spec.dtype}, got {spec.dtype}", "4.4")


class _BaseOf:
    """The rows of the base that the blocks of one tensor ask for, on a device. Reads each base tensor once."""

    def __init__(
        self, entry: TensorEntry, specs: Mapping[str, TensorSpec], read_base: ReadBase, device: torch.device
    ) -> None:
        self._entry, self._specs, self._read_base, self._device = entry, specs, read_base, device
        self._read: dict[str, Tensor] = {}

    def same(self, base: BaseRows | None, height: int) -> Tensor:
        """Rows converted to the tensor's dtype, as bytes."""
        target = self._entry.spec
        if base is None:
            return torch.zeros((), dtype=torch.uint8, device=self._device)
        spec, data = self._rows(base, height)
        if spec.dtype == target.dtype:
            return data
        return convert(data.view(torch_dtype(spec.dtype)), target.dtype).view(torch.uint8)

    def floats(self, base: BaseRows | None, height: int) -> Tensor:
        """Rows as float32, or float64 if the tensor is F64: [height, columns]. Fresh memory or a view."""
        wide = torch.float64 if self._entry.spec.dtype == "F64" else torch.float32
        shape = (height, self._entry.columns)
        if base is None:
            return torch.zeros(shape, dtype=wide, device=self._device)
        spec, data = self._rows(base, height)
        return data.view(torch_dtype(spec.dtype)).to(wide).view(shape)

    def _rows(self, base: BaseRows, height: int) -> tuple[TensorSpec, Tensor]:
        """Spec of the base tensor and the bytes of some of its rows, which `check_fit` has found there."""
        if base.name not in self._read:
            self._read[base.name] = _as_tensor(self._read_base(base.name)).to(self._device)
        spec = self._specs[base.name]
        return spec, self._read[base.name][row_span(spec, self._entry.columns, base.first, height)]


def _as_tensor(data: Bytes) -> Tensor:
    return tensor_from_bytes(data, TensorSpec("U8", (len(data),)))


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
    """The delta of coded rows and columns, on the device, in the precision that level B asks for."""
    if device.type == "cpu" or coded.right is None:
        return torch.from_numpy(np.ascontiguousarray(coded.dense())).to(device)
    left, right = (torch.from_numpy(np.ascontiguousarray(factor)).to(device) for factor in (coded.left, coded.right))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            return left @ right
    finally:
        torch.set_float32_matmul_precision(precision)
