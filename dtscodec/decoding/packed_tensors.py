"""Tensors of a pack in memory, still packed, on a device: what weights are rebuilt from, once or often."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.files.range_reader import Bytes
from dtscodec.format.blocks import Block, LowRank, Raw, Values
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.parts import raw_bytes
from dtscodec.format.reader import PackReader
from dtscodec.format.streams import Streams
from dtscodec.kernels.packed import PackedFactors, PackedValues, Store

Payload: TypeAlias = "PackedFactors | PackedValues | Tensor | None"
"""What a block stores: factors, values, exact bytes (uint8), or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBlock:
    """A block, the first row of it, and what it stores."""

    row: int
    block: Block
    payload: Payload


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTensor:
    """A tensor's entry and its blocks."""

    entry: TensorEntry
    blocks: tuple[LoadedBlock, ...]


def load_tensors(reader: PackReader, names: Iterable[str], device: torch.device) -> dict[str, LoadedTensor]:
    """Read tensors of a pack, check them, and put them on a device, their codes in one store.

    Raises
    ------
    FormatError
        The pack is damaged there.
    """
    entries = [reader.entry(name) for name in names]
    blocks = [(block, entry.columns) for entry in entries for block in entry.blocks]
    store = Store([(block, columns) for block, columns in blocks if isinstance(block, Values | LowRank)], device)
    return {entry.name: _load(reader, entry, store) for entry in entries}


def _load(reader: PackReader, entry: TensorEntry, store: Store) -> LoadedTensor:
    stored = reader.blocks(entry.name)
    blocks = (LoadedBlock(row, block, _payload(entry, block, streams, store)) for row, block, streams in stored)
    return LoadedTensor(entry, tuple(blocks))


def _payload(entry: TensorEntry, block: Block, streams: Streams, store: Store) -> Payload:
    if isinstance(block, LowRank):
        return store.factors(block, entry.columns, streams)
    if isinstance(block, Values):
        return store.values(block, entry.columns, streams)
    if isinstance(block, Raw):
        return as_tensor(raw_bytes(entry, block, streams)).to(store.device)
    return None


def as_tensor(data: Bytes) -> Tensor:
    """Bytes as a tensor over the same memory."""
    return tensor_from_bytes(data, TensorSpec("U8", (len(data),)))
