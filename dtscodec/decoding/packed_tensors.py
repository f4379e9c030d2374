"""Tensors of a pack in memory, still packed, on a device; weights are reconstructed from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import assert_never
from dtscodec.files.range_reader import Bytes
from dtscodec.format.blocks import Block, Content, LowRankContent, ValuesContent
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.reader import PackReader
from dtscodec.kernels.packed import Packed, Store

Payload: TypeAlias = Packed | Tensor | None
"""The data of a block on a device: packed codes, exact bytes (uint8), or nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBlock:
    """A block with its first row and its data."""

    row: int
    block: Block
    payload: Payload


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTensor:
    """A tensor's entry and its blocks."""

    entry: TensorEntry
    blocks: tuple[LoadedBlock, ...]


def load_tensors(reader: PackReader, names: Iterable[str], device: torch.device) -> dict[str, LoadedTensor]:
    """Read and check tensors of a pack, and load them to a device, their codes into one store.

    Raises
    ------
    FormatError
        The pack is damaged there.
    """
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
            return store.values(content)
        case LowRankContent():
            return store.factors(content)
        case _:
            assert_never(content)


def as_tensor(data: Bytes) -> Tensor:
    """Return a uint8 tensor that shares the memory of some bytes."""
    return tensor_from_bytes(data, TensorSpec("U8", (len(data),)))
