"""Coded blocks as they stay in memory: still packed, on a device, in one store for many blocks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.format.blocks import Band, Coded, LowRank, Values
from dtscodec.format.parts import BandParts, Floats, Mask, split_masks
from dtscodec.format.streams import Streams
from dtscodec.quantize.packing import PackedVectors, vector_bytes
from dtscodec.quantize.widths import Bits, width_of


class Store:
    """The packed codes and the numbers of many blocks: two tensors, since each tensor takes memory of its own.

    Parameters
    ----------
    blocks : iterable of (block, columns)
        What it will hold: coded blocks, and the columns of their tensors.
    device : torch.device

    Attributes
    ----------
    codes : uint8 [bytes]
        Every vector begins at a multiple of 16.
    numbers : float32 [count]
        Level tables and scales, as in the pack (spec section 5.2).
    """

    def __init__(self, blocks: Iterable[tuple[Coded, int]], device: torch.device) -> None:
        sizes = [(sum(block.band_bytes(columns)), block.number_count(columns)) for block, columns in blocks]
        self.codes = torch.empty(sum(size for size, _ in sizes), dtype=torch.uint8, device=device)
        self.numbers = torch.empty(sum(count for _, count in sizes), dtype=torch.float32, device=device)
        self._used_codes = self._used_numbers = 0

    @property
    def device(self) -> torch.device:
        """Where the store lies."""
        return self.codes.device

    def factors(self, block: LowRank, columns: int, streams: Streams) -> "PackedFactors":
        """Take in a `lowrank` block whose streams are sound (see `dtscodec.format.parts.check_coded`)."""
        rows, cols = _indices(block, columns, streams, self.device)
        codes, numbers = self._put(streams)
        return PackedFactors(self, block.height, columns, rows, cols, codes, numbers, block.bands, block.per_vector)

    def values(self, block: Values, columns: int, streams: Streams) -> "PackedValues":
        """Take in a `values` block whose streams are sound."""
        rows, cols = _indices(block, columns, streams, self.device)
        codes, numbers = self._put(streams)
        return PackedValues(self, block.height, columns, rows, cols, codes, numbers, block.bits, block.per_row)

    def _put(self, streams: Streams) -> tuple[int, int]:
        """Copy the streams of the next block; where they begin."""
        codes, numbers = self._used_codes, self._used_numbers
        packed = bytearray().join(streams.bands)
        self._used_codes += len(packed)
        self._used_numbers += len(streams.numbers)
        self.codes[codes : self._used_codes] = torch.frombuffer(packed, dtype=torch.uint8)
        self.numbers[numbers : self._used_numbers] = torch.from_numpy(streams.numbers.copy())
        return codes, numbers


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """What packed blocks share: where they lie in their store, and which elements of the block they change.

    Parameters
    ----------
    store : Store
    height, columns : int
        Of the block.
    rows, cols : int16 or int32 [count], or None
        Coded rows and columns, ascending; None for all.
    codes_at, numbers_at : int
        Where its codes and numbers begin.
    """

    store: Store
    height: int
    columns: int
    rows: Tensor | None
    cols: Tensor | None
    codes_at: int
    numbers_at: int

    @property
    def coded_shape(self) -> tuple[int, int]:
        """Coded rows and columns."""
        return (
            self.height if self.rows is None else len(self.rows),
            self.columns if self.cols is None else len(self.cols),
        )

    @property
    def is_whole(self) -> bool:
        """Whether all elements of the block are coded."""
        return self.rows is None and self.cols is None

    def places(self) -> tuple[Tensor | slice, Tensor | slice]:
        """Index of the coded rows and columns of a [height, columns] tensor."""
        rows = None if self.rows is None else self.rows.long()
        cols = None if self.cols is None else self.cols.long()
        if rows is not None and cols is not None:
            return rows[:, None], cols
        return (slice(None) if rows is None else rows), (slice(None) if cols is None else cols)


@dataclass(frozen=True, slots=True)
class PackedBand:
    """Where one band of a `PackedFactors` lies in the store.

    Parameters
    ----------
    bits, rank : int
    u_at, v_at : int
        First byte of its first vector of u, and of v.
    stride : int
        Bytes from one component to the next.
    u_levels, v_levels : int
        First number of the level tables of u and v (2 bits only).
    scales : int
        First of its scales (none for 16 bits).
    """

    bits: Bits
    rank: int
    u_at: int
    v_at: int
    stride: int
    u_levels: int
    v_levels: int
    scales: int


@dataclass(frozen=True, slots=True, eq=False)
class PackedFactors(Packed):
    """The factors of a `lowrank` block: delta = (u s) v^T, u [m, r], v [n, r], of m coded rows, n coded columns."""

    bands: tuple[Band, ...]
    per_vector: bool

    @property
    def rank(self) -> int:
        """Components of all bands."""
        return sum(band.rank for band in self.bands)

    def parts(self) -> list[BandParts]:
        """Each band as the streams of the block give it: numpy arrays over a store on the CPU."""
        codes, numbers = self.store.codes.numpy(), self.store.numbers.numpy()
        m, n = self.coded_shape
        found = []
        for band in self.placed():
            records = codes[band.u_at : band.u_at + band.rank * band.stride].reshape(band.rank, band.stride)
            cut = band.v_at - band.u_at
            width = width_of(band.bits)
            u_levels, v_levels = numbers[band.u_levels : band.v_levels], numbers[band.v_levels : band.scales]
            u = PackedVectors(records[:, :cut], width.code_books(u_levels), m, band.bits)
            v = PackedVectors(records[:, cut:], width.code_books(v_levels), n, band.bits)
            scales = numbers[band.scales : band.scales + band.rank * width.has_scales]
            found.append(BandParts(u, v, scales))
        return found

    def placed(self) -> list[PackedBand]:
        """Where each band lies."""
        m, n = self.coded_shape
        codes, numbers = self.codes_at, self.numbers_at + 1  # The norm comes first.
        found = []
        for band in self.bands:
            u_bytes = vector_bytes(m, band.bits)
            stride = u_bytes + vector_bytes(n, band.bits)
            tables = band.width.stored_levels * band.table_count(self.per_vector)
            v_levels, scales = numbers + tables, numbers + 2 * tables
            found.append(PackedBand(band.bits, band.rank, codes, codes + u_bytes, stride, numbers, v_levels, scales))
            codes += band.rank * stride
            numbers += band.number_count(self.per_vector)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class PackedValues(Packed):
    """The codes of a `values` block: one for each coded element, row by row."""

    bits: Bits
    per_row: bool

    def parts(self) -> tuple[PackedVectors, Floats]:
        """Codes and scales as the streams of the block give them: numpy arrays over a store on the CPU."""
        rows, cols = self.coded_shape
        size = vector_bytes(rows * cols, self.bits)
        packed = self.store.codes.numpy()[None, self.codes_at : self.codes_at + size]
        width = width_of(self.bits)
        scales_at = self.numbers_at + width.stored_levels
        numbers = self.store.numbers.numpy()
        levels = width.code_books(numbers[self.numbers_at : scales_at])
        scales = numbers[scales_at : scales_at + self.scale_count]
        return PackedVectors(packed, levels, rows * cols, self.bits), scales

    @property
    def scale_count(self) -> int:
        """Scales of the block, which follow its levels: none, one, or one for each coded row."""
        return (self.coded_shape[0] if self.per_row else 1) * width_of(self.bits).has_value_scales


def _indices(block: Coded, columns: int, streams: Streams, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    rows, cols = split_masks(block, columns, streams)
    return _index(rows, device), _index(cols, device)


def _index(mask: Mask | None, device: torch.device) -> Tensor | None:
    """Positions of a mask's flags, in as few bytes as hold them."""
    if mask is None:
        return None
    found: NDArray[np.generic] = np.flatnonzero(mask).astype(np.int16 if len(mask) <= 2**15 else np.int32)
    return torch.from_numpy(found).to(device)
