"""Codes -> delta, in numpy (spec sections 5.3, 6.4, 6.5 and 8). Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.blocks import Coded, LowRank, Values
from dtscodec.format.parts import BandParts, Mask, split_lowrank, split_masks, split_values
from dtscodec.format.streams import Streams
from dtscodec.quantize.packing import PackedVectors, codes_of_bytes, unpack_codes
from dtscodec.quantize.widths import NORMAL_LEVELS

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class CodedDelta:
    """What a coded block adds to its base.

    Parameters
    ----------
    rows, cols : bool mask or None
        Which rows and columns are coded; None for all.
    left : float [rows, r]
        For low rank u s, for values the delta itself.
    right : float [r, columns] or None
        For low rank v^T; None for values.
    """

    rows: Mask | None
    cols: Mask | None
    left: Floats
    right: Floats | None

    def dense(self) -> Floats:
        """The delta of the coded rows and columns."""
        with np.errstate(over="ignore", invalid="ignore"):  # What a pack asks for is not ours to warn of.
            return self.left if self.right is None else self.left @ self.right

    def place(self, height: int, columns: int) -> Floats:
        """The delta of all rows and columns of the block, zero where nothing is coded."""
        if self.rows is None and self.cols is None:
            return self.dense()
        whole = np.zeros((height, columns), self.left.dtype)
        whole[self.where(height, columns)] = self.dense()
        return whole

    def where(self, height: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Index of the coded rows and columns of a [height, columns] array."""
        rows = np.arange(height) if self.rows is None else np.flatnonzero(self.rows)
        cols = np.arange(columns) if self.cols is None else np.flatnonzero(self.cols)
        return np.ix_(rows, cols)  # type: ignore[return-value]


def dequantize(block: Coded, columns: int, streams: Streams, dtype: type[np.floating] = np.float32) -> CodedDelta:
    """Turn a coded block's streams into its delta.

    Parameters
    ----------
    block : Values or LowRank
    columns : int
        Columns of its tensor, seen as a matrix.
    streams : Streams
    dtype : numpy float32 or float64
        Of the arithmetic: float64 for tensors of F64.

    Raises
    ------
    FormatError
        Rules W1, N2, E1 and E2.
    """
    rows, cols = split_masks(block, columns, streams)
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(block, LowRank):
            left, right = scaled_factors(split_lowrank(block, columns, streams)[1], dtype)
            return CodedDelta(rows, cols, left.T, right)
        return CodedDelta(rows, cols, _values(block, columns, streams).astype(dtype, copy=False), None)


def _values(block: Values, columns: int, streams: Streams) -> Floats:
    """Always in float32, so that every decoder gets the same bits (level A)."""
    vector, scales = split_values(block, columns, streams)
    values = code_values(vector).reshape(block.coded_shape(columns))
    return values * scales[:, None] if len(scales) else values


def scaled_factors(bands: Sequence[BandParts], dtype: type[np.floating]) -> tuple[Floats, Floats]:
    """The factors of all bands: (u s)^T [r, rows] and v^T [r, columns]."""
    if len(bands) == 1:
        return _scaled_u(bands[0], dtype), code_values(bands[0].v).astype(dtype, copy=False)
    rank = sum(len(band.u.packed) for band in bands)
    left, right = np.empty((rank, bands[0].u.count), dtype), np.empty((rank, bands[0].v.count), dtype)
    begin = 0
    for band in bands:
        end = begin + len(band.u.packed)
        left[begin:end] = _scaled_u(band, dtype)
        right[begin:end] = code_values(band.v)
        begin = end
    return left, right


def _scaled_u(band: BandParts, dtype: type[np.floating]) -> Floats:
    u = code_values(band.u).astype(dtype, copy=False)
    return u * band.scales.astype(dtype, copy=False)[:, None] if len(band.scales) else u


def code_values(vectors: PackedVectors) -> NDArray[np.float32]:
    """The values of packed codes: float32 [k, count]."""
    if vectors.bits == 8 or vectors.bits == 16:
        return unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits).astype(np.float32)
    tables = NORMAL_LEVELS[None] if vectors.bits == 4 else vectors.levels
    if len(tables) == 1:  # One lookup for all codes of a byte.
        of_bytes = tables[0][codes_of_bytes(vectors.bits)]
        return np.take(of_bytes, vectors.packed, axis=0).reshape(len(vectors.packed), -1)[:, : vectors.count]
    codes = unpack_codes(vectors.packed, vectors.count, vectors.bits)
    return np.take_along_axis(tables, codes.astype(np.intp), axis=1)
