"""Coded blocks in memory, still packed, on a device: one store for many blocks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.format.blocks import (
    BandFactors,
    BandPlace,
    Coded,
    CodedContent,
    LowRank,
    LowRankContent,
    Mask,
    Values,
    ValuesContent,
)
from dtscodec.format.streams import Streams
from dtscodec.quantize.packing import PackedVectors


class Store:
    """The packed codes and the numbers of many blocks, in two tensors, since each tensor has an overhead.

    Parameters
    ----------
    blocks : iterable of (block, columns)
        The coded blocks to be added, and the columns of their tensors.
    device : torch.device
        Device of the two tensors.

    Attributes
    ----------
    codes : uint8 [bytes]
        Every vector begins at a multiple of 16.
    numbers : float32 [count]
        Level tables and scales, as in the pack (spec section 5.2).
    """

    def __init__(self, blocks: Iterable[tuple[Coded, int]], device: torch.device) -> None:
        # Sizes follow from the blocks, so that each tensor is allocated once.
        sizes = [(sum(block.band_bytes(columns)), block.number_count(columns)) for block, columns in blocks]
        self.codes = torch.empty(sum(size for size, _ in sizes), dtype=torch.uint8, device=device)
        self.numbers = torch.empty(sum(count for _, count in sizes), dtype=torch.float32, device=device)
        self._used_codes = self._used_numbers = 0

    @property
    def device(self) -> torch.device:
        """The device of the store."""
        return self.codes.device

    def add_factors(self, content: LowRankContent) -> "PackedFactors":
        """Add a `lowrank` block and return its packed factors."""
        return PackedFactors(self, content.block, content.columns, *self._indices(content), *self._put(content.streams))

    def add_values(self, content: ValuesContent) -> "PackedValues":
        """Add a `values` block and return its packed codes."""
        return PackedValues(self, content.block, content.columns, *self._indices(content), *self._put(content.streams))

    def _indices(self, content: CodedContent) -> tuple[Tensor | None, Tensor | None]:
        return _index(content.rows, self.device), _index(content.cols, self.device)

    def _put(self, streams: Streams) -> tuple[int, int]:
        """Copy the streams of the next block; return where its codes and its numbers begin."""
        codes, numbers = self._used_codes, self._used_numbers
        # Writable copies, since torch warns about read-only memory.
        packed = bytearray().join(streams.bands)
        self._used_codes += len(packed)
        self._used_numbers += len(streams.numbers)
        self.codes[codes : self._used_codes] = torch.from_numpy(np.frombuffer(packed, np.uint8))
        self.numbers[numbers : self._used_numbers] = torch.from_numpy(streams.numbers.copy())
        return codes, numbers


@dataclass(frozen=True, slots=True, eq=False)
class PackedBlock:
    """The position of a packed block in its store, and its coded rows and columns; the base of all kinds.

    Parameters
    ----------
    store : Store
        The store that holds its codes and numbers.
    block : Values or LowRank
        The block.
    columns : int
        Columns of its tensor, viewed as a matrix.
    rows, cols : int16 or int32 [count], or None
        Coded rows and columns, ascending; None for all.
    codes_at : int
        Offset of its codes in the store, in bytes.
    numbers_at : int
        Position of its first number in the store.
    """

    store: Store
    block: Coded
    columns: int
    rows: Tensor | None
    cols: Tensor | None
    codes_at: int
    numbers_at: int

    @property
    def coded_shape(self) -> tuple[int, int]:
        """Numbers of coded rows and columns."""
        return self.block.coded_shape(self.columns)

    @property
    def is_whole(self) -> bool:
        """True if all elements of the block are coded."""
        return self.rows is None and self.cols is None

    @property
    def number_span(self) -> slice:
        """The span of its numbers in the store."""
        return slice(self.numbers_at, self.numbers_at + self.block.number_count(self.columns))

    def where(self) -> tuple[Tensor | slice, Tensor | slice]:
        """Return the index of the coded rows and columns of a [height, columns] tensor."""
        # With subsets of both, indices [m, 1] and [n] broadcast to [m, n].
        rows = None if self.rows is None else self.rows.long()
        cols = None if self.cols is None else self.cols.long()
        if rows is not None and cols is not None:
            return rows[:, None], cols
        return (slice(None) if rows is None else rows), (slice(None) if cols is None else cols)


@dataclass(frozen=True, slots=True, eq=False)
class PackedFactors(PackedBlock):
    """The factors of a `lowrank` block: delta = (u s) v^T, u [m, r], v [n, r], of m coded rows, n coded columns."""

    block: LowRank

    def band_places(self) -> list[BandPlace]:
        """Return the positions of each band in the store."""
        return list(self.block.places(self.columns, self.codes_at, self.numbers_at))

    def band_codes(self) -> list[Tensor]:
        """Return the packed codes of each band: views of the store, uint8 [bytes]."""
        return [self.store.codes[place.code_span] for place in self.band_places()]

    def view(self) -> list[BandFactors]:
        """Return the factors of each band as numpy views of the store, which must be on the CPU."""
        codes, numbers = self.store.codes.numpy(), self.store.numbers.numpy()
        shape = self.coded_shape
        return [place.view(shape, codes[place.code_span], numbers) for place in self.band_places()]


@dataclass(frozen=True, slots=True, eq=False)
class PackedValues(PackedBlock):
    """The codes of a `values` block: one for each coded element, row by row."""

    block: Values

    def view(self) -> tuple[PackedVectors, NDArray[np.float32]]:
        """Return codes and scales as numpy views of the store, which must be on the CPU."""
        (size,) = self.block.band_bytes(self.columns)
        codes = self.store.codes.numpy()[self.codes_at : self.codes_at + size]
        return self.block.view(self.columns, codes, self.store.numbers.numpy()[self.number_span])


Packed: TypeAlias = PackedFactors | PackedValues
"""A packed block of any coded kind."""


def _index(mask: Mask | None, device: torch.device) -> Tensor | None:
    """Return the positions of a mask's flags on a device, as int16 if that holds them, else int32."""
    if mask is None:
        return None
    found: NDArray[np.generic] = np.flatnonzero(mask).astype(np.int16 if len(mask) <= 2**15 else np.int32)
    return torch.from_numpy(found).to(device)
