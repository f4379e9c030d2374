"""Tensors of a pack, loaded to a device in packed form, and reconstructed (spec sections 6 and 8, steps 3 to 6).

`dtscodec.packs.numpy_decoder` does the same in numpy, without torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes, torch_dtype
from dtscodec.errors import assert_never
from dtscodec.files.range_reader import Bytes
from dtscodec.format.blocks import BaseRows, Block, Content, LowRankContent, ValuesContent
from dtscodec.format.dtypes import TensorSpec, bits_of
from dtscodec.format.index import TensorEntry
from dtscodec.format.reader import PackReader
from dtscodec.kernels.backend import Backend
from dtscodec.kernels.packed import Packed, PackedFactors, Store
from dtscodec.kernels.reference import wide_dtype
from dtscodec.kernels.unpack import unpack_delta

Payload: TypeAlias = Packed | Tensor | None
"""The data of a block on a device: packed codes, exact bytes (uint8), or None if the block stores none."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBlock:
    """A block whose data is on a device.

    Parameters
    ----------
    row : int
        Its first row in the tensor.
    block : Block
        The block.
    payload : Payload
        Its data.
    """

    row: int
    block: Block
    payload: Payload


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTensor:
    """A tensor whose blocks are on a device, still packed.

    Parameters
    ----------
    entry : TensorEntry
        The tensor's entry in the index.
    blocks : tuple of LoadedBlock
        In the order of their rows.
    """

    entry: TensorEntry
    blocks: tuple[LoadedBlock, ...]


def load_tensors(reader: PackReader, names: Iterable[str], device: torch.device) -> dict[str, LoadedTensor]:
    """Read and check tensors of a pack, and copy them to a device in packed form.

    Parameters
    ----------
    reader : PackReader
        The pack.
    names : iterable of str
        Tensors of the fine-tune.
    device : torch.device
        Device of the results.

    Returns
    -------
    dict of str to LoadedTensor
        The codes of all tensors are in one store.

    Raises
    ------
    KeyError
        No tensor of that name.
    FormatError
        The pack is damaged there.
    """
    # One store for the coded blocks of all tensors, then each tensor's blocks into it.
    entries = [reader.entry(name) for name in names]
    blocks = [(block, entry.columns) for entry in entries for block in entry.blocks]
    store = Store([(block, columns) for block, columns in blocks if block.is_coded], device)
    return {entry.name: _load_tensor(reader, entry, store) for entry in entries}


def _load_tensor(reader: PackReader, entry: TensorEntry, store: Store) -> LoadedTensor:
    contents = reader.contents(entry.name)
    return LoadedTensor(
        entry, tuple(LoadedBlock(row, block, _load(content, store)) for row, block, content in contents)
    )


def _load(content: Content, store: Store) -> Payload:
    match content:
        case None:
            return None
        case np.ndarray():
            return as_tensor(content).to(store.device)
        case ValuesContent():
            return store.add_values(content)
        case LowRankContent():
            return store.add_factors(content)
        case _:
            assert_never(content)


def as_tensor(data: Bytes) -> Tensor:
    """Return bytes as a uint8 tensor that shares their memory."""
    return tensor_from_bytes(data, TensorSpec("U8", (len(data),)))


ReadBase: TypeAlias = Callable[[str], tuple[TensorSpec, Tensor]]
"""Returns the spec of a base tensor and its checked bytes: uint8 [nbytes], on the device of the reconstruction."""


def reconstruct(
    tensor: LoadedTensor, read_base: ReadBase, backend: Backend, out: Tensor, holds_base: bool = False
) -> None:
    """Reconstruct one tensor from its blocks and the base.

    Parameters
    ----------
    tensor : LoadedTensor
        The tensor, not a tie. The base has the rows that its blocks use (`TensorEntry.check_base`).
    read_base : callable
        Returns the spec and the checked bytes of a base tensor by name.
    backend : Backend
        Backend of the device on which all tensors lie.
    out : uint8 [nbytes]
        Output: the bytes of the tensor.
    holds_base : bool
        Whether `out` already holds the base's rows in the tensor's dtype, so that only coded elements are written.

    Raises
    ------
    TypeError
        The tensor is a tie.
    """
    entry = tensor.entry
    if entry.tied_to is not None:
        raise TypeError(f"{entry.name} is tied to {entry.tied_to}")
    for loaded in tensor.blocks:
        part = _part(out, row_span(entry.spec, entry.columns, loaded.row, loaded.block.height))
        # Coded, exact, or the base's rows.
        if isinstance(loaded.payload, Packed):
            _write_coded(part, entry, loaded, loaded.payload, read_base, backend, holds_base)
        elif loaded.payload is not None:
            part.copy_(loaded.payload)
        elif not holds_base:
            _write_same(part, entry, loaded, read_base)


def row_span(spec: TensorSpec, columns: int, first: int, height: int) -> slice:
    """Return the span of consecutive rows in the bytes of a tensor.

    Parameters
    ----------
    spec : TensorSpec
        Spec of the tensor.
    columns : int
        Its columns, viewed as a matrix.
    first, height : int
        The first row, and the number of rows. A single row of a dtype of 4 or 6 bits need not fill whole bytes; blocks
        do.
    """
    bits = columns * bits_of(spec.dtype)
    return slice(first * bits // 8, (first + height) * bits // 8)


def _write_same(part: Tensor, entry: TensorEntry, loaded: LoadedBlock, read_base: ReadBase) -> None:
    """Write the base's rows, converted to the tensor's dtype; zeros without a base."""
    base = loaded.block.base
    if base is None:
        part.zero_()
        return
    spec, data = _rows(base, loaded.block.height, entry.columns, read_base)
    # Exact bytes if dtypes are equal, else widened exactly or rounded (section 6.1).
    if spec.dtype == entry.spec.dtype:
        part.copy_(data)
    else:
        part.copy_(convert_dtype(data.view(torch_dtype(spec.dtype)), entry.spec.dtype).view(torch.uint8))


def _write_coded(
    part: Tensor,
    entry: TensorEntry,
    loaded: LoadedBlock,
    packed: Packed,
    read_base: ReadBase,
    backend: Backend,
    only_coded: bool,
) -> None:
    """Write W = B + delta into the bytes of a block's rows. Elements that are not coded are the base's, converted."""
    shape = (loaded.block.height, entry.columns)
    dtype = torch_dtype(entry.spec.dtype)
    out = part.view(dtype).view(shape)
    # The base's rows in its own dtype: converting them first would round twice.
    rows = loaded.block.base
    if rows is None:
        # One zero, broadcast, takes no memory.
        base = torch.zeros((), dtype=dtype, device=part.device).expand(shape)
    else:
        spec, data = _rows(rows, loaded.block.height, entry.columns, read_base)
        base = data.view(torch_dtype(spec.dtype)).view(shape)
    if isinstance(packed, PackedFactors):
        backend.reconstruct(base, packed, out, only_coded)
    else:
        _write_sum(base, packed, out)


def _write_sum(base: Tensor, packed: Packed, out: Tensor) -> None:
    """Write W = base + delta in float32 (float64 where the tensor is): level A, so the same on every device."""
    # A float64 base is converted by way of float32 (spec section 6.1).
    if base.dtype == torch.float64 != out.dtype:
        base = base.float()
    delta = unpack_delta(packed, wide_dtype(out.dtype))
    # Only coded elements are rounded: the others keep the base's bits.
    if packed.is_whole:
        torch.add(base, delta, out=out)
        return
    out.copy_(base)
    where = packed.where()
    out[where] = (base[where].to(delta.dtype) + delta).to(out.dtype)


def _rows(base: BaseRows, height: int, columns: int, read_base: ReadBase) -> tuple[TensorSpec, Tensor]:
    """Return the spec of a base tensor and the bytes of rows of it, which `TensorEntry.check_base` has checked."""
    spec, data = read_base(base.name)
    return spec, _part(data, row_span(spec, columns, base.first, height))


def _part(data: Tensor, span: slice) -> Tensor:
    return data if not span.start and span.stop == len(data) else data[span]
