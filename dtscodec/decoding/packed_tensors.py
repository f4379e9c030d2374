"""Tensors of a pack in memory, still packed, on a device: what weights are rebuilt from, once or often."""

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
    """Bytes as a tensor over the same memory."""
    return tensor_from_bytes(data, TensorSpec("U8", (len(data),)))
