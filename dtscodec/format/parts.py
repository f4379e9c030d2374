"""A coded block's streams <-> its parts: masks, level tables, scales and packed vectors (spec sections 5 and 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import FormatError
from dtscodec.format.blocks import Band, Coded, LowRank, Raw, Values
from dtscodec.format.dtypes import bits_of, plane_count
from dtscodec.format.index import TensorEntry
from dtscodec.format.primitives.bitmaps import pack_bitmap, unpack_bitmap
from dtscodec.format.primitives.byte_planes import join_planes
from dtscodec.format.streams import Streams
from dtscodec.quantize.packing import PackedVectors, padding_is_zero, unpack_codes, vector_bytes
from dtscodec.quantize.widths import Width, width_of

Floats = NDArray[np.float32]
Packed = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BandParts:
    """One band: u [r, rows], v [r, columns] and the scales float32 [r] (none for 16 bits)."""

    u: PackedVectors
    v: PackedVectors
    scales: Floats


# Raw


def raw_bytes(entry: TensorEntry, block: Raw, streams: Streams) -> Packed:
    """The exact bytes of a `raw` block: uint8 [bytes].

    The inverse of `dtscodec.format.primitives.byte_planes.split_planes`.

    Raises
    ------
    FormatError
        Rule P2.
    """
    if block.planes is None:
        return np.frombuffer(streams.raw, np.uint8)
    size = block.height * entry.columns * bits_of(entry.spec.dtype) // 8
    try:
        return join_planes(streams.raw, block.planes, size, plane_count(entry.spec.dtype))
    except ValueError as error:
        raise FormatError("zstd", entry.name, str(error), "5.4") from error


# Masks


def join_masks(rows: Mask | None, cols: Mask | None) -> bytes:
    """The bitmaps of a block; the inverse of `split_masks`."""
    return b"".join(pack_bitmap(mask) for mask in (rows, cols) if mask is not None)


def split_masks(block: Coded, columns: int, streams: Streams) -> tuple[Mask | None, Mask | None]:
    """Which rows and columns are coded, None for all of them; the inverse of `join_masks`.

    Raises
    ------
    FormatError
        Rule W1.
    """
    masks: list[Mask | None] = []
    begin = 0
    for chosen, whole in ((block.rows, block.height), (block.cols, columns)):
        mask = None
        if chosen is not None:
            end = begin + -(-whole // 8)
            try:
                mask = unpack_bitmap(streams.bitmaps[begin:end], whole)
            except ValueError as error:
                raise FormatError("rows", "bitmap", str(error), "5.1") from error
            if mask.sum() != chosen:
                raise FormatError("rows", "bitmap", f"expected {chosen} bits set, got {mask.sum()}", "5.1")
            begin = end
        masks.append(mask)
    return masks[0], masks[1]


# Values


def join_values(codes: PackedVectors, scales: Floats) -> tuple[Floats, tuple[bytes, ...]]:
    """Numbers and bands of a `values` block; the inverse of `split_values`."""
    return np.concatenate([codes.levels.ravel(), scales]), (codes.packed.tobytes(),)


def split_values(block: Values, columns: int, streams: Streams) -> tuple[PackedVectors, Floats]:
    """The vector of a `values` block and its scales (none for 2 and 16 bits); the inverse of `join_values`.

    Raises
    ------
    FormatError
        Rules E1, E2 and N2.
    """
    rows, cols = block.coded_shape(columns)
    packed = np.frombuffer(streams.bands[0], np.uint8).reshape(1, -1)
    tables = block.width.stored_levels
    levels = _levels(streams.numbers[:tables], block.width)
    vectors = _checked(PackedVectors(packed, levels, rows * cols, block.bits))
    return vectors, streams.numbers[tables:]


# Low rank


def join_lowrank(norm: float, bands: Sequence[BandParts]) -> tuple[Floats, tuple[bytes, ...]]:
    """Numbers and bands of a `lowrank` block; the inverse of `split_lowrank`."""
    numbers = [np.array([norm], np.float32)]
    packed = []
    for band in bands:
        numbers += [band.u.levels.ravel(), band.v.levels.ravel(), band.scales]
        packed.append(np.concatenate([band.u.packed, band.v.packed], axis=1).tobytes())
    return np.concatenate(numbers), tuple(packed)


def split_lowrank(block: LowRank, columns: int, streams: Streams) -> tuple[float, list[BandParts]]:
    """Norm and bands of a `lowrank` block; the inverse of `join_lowrank`.

    Raises
    ------
    FormatError
        Rules E1, E2 and N2.
    """
    norm, numbers = float(streams.numbers[0]), streams.numbers[1:]
    if norm < 0:
        raise FormatError("numbers", "norm", f"expected at least 0, got {norm}", "5.2")
    parts = []
    for band, data in zip(block.bands, streams.bands, strict=True):
        count = band.number_count(block.per_vector)
        parts.append(_split_band(band, block, columns, numbers[:count], data))
        numbers = numbers[count:]
    return norm, parts


def _split_band(band: Band, block: LowRank, columns: int, numbers: Floats, data: bytes) -> BandParts:
    rows, cols = block.coded_shape(columns)
    records = np.frombuffer(data, np.uint8).reshape(band.rank, -1)
    cut = vector_bytes(rows, band.bits)
    tables = band.width.stored_levels * band.table_count(block.per_vector)
    u = PackedVectors(records[:, :cut], _levels(numbers[:tables], band.width), rows, band.bits)
    v = PackedVectors(records[:, cut:], _levels(numbers[tables : 2 * tables], band.width), cols, band.bits)
    return BandParts(_checked(u), _checked(v), numbers[2 * tables :])


def _levels(numbers: Floats, width: Width) -> Floats:
    """Rule N2: each table of levels ascends."""
    tables = width.code_books(numbers)
    if (np.diff(tables, axis=1) < 0).any():
        raise FormatError("numbers", "levels", "expected levels that ascend", "5.2")
    return tables


def _checked(vectors: PackedVectors) -> PackedVectors:
    """Rules E1 and E2."""
    if not padding_is_zero(vectors.packed, vectors.count, vectors.bits):
        raise FormatError("padding", "codes", "expected padding bits of zero", "5.3")
    if width_of(vectors.bits).is_float:
        codes = unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits)
        if not np.isfinite(codes.astype(np.float32)).all():
            raise FormatError("numbers", "codes", f"expected finite {vectors.bits}-bit codes", "5.3")
    return vectors


def check_coded(block: Coded, columns: int, streams: Streams) -> None:
    """Raise FormatError unless the streams of a coded block are sound (rules W1, N2, E1 and E2)."""
    split_masks(block, columns, streams)
    if isinstance(block, Values):
        split_values(block, columns, streams)
    else:
        split_lowrank(block, columns, streams)
