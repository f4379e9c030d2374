"""The parts that coded kinds share: coded rows and columns, checks of vectors, and the delta (spec sections 4.3, 5)."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import FormatError
from dtscodec.format.blocks.base_rows import BaseRows, base_json, parse_base
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import Streams
from dtscodec.quantize.packing import PackedVectors, padding_is_zero, unpack_codes
from dtscodec.quantize.scalar import Vectors
from dtscodec.quantize.widths import width_of

Mask: TypeAlias = NDArray[np.bool_]
"""Flags of rows or columns: True where they are coded."""

Floats: TypeAlias = NDArray[np.floating]
"""Float32, or float64 for tensors of F64."""


@dataclass(frozen=True, slots=True)
class SubsetBlock:
    """A block whose delta is zero outside some rows and columns.

    Parameters
    ----------
    height : int
        Rows of the block.
    base : BaseRows or None
        The rows that the delta is added to; None for zeros.
    rows, cols : int or None
        Number of coded rows and columns; None for all of them.
    """

    height: int
    base: BaseRows | None
    rows: int | None
    cols: int | None

    def coded_shape(self, columns: int) -> tuple[int, int]:
        """Return the numbers of coded rows and columns of the block in a tensor of `columns` columns."""
        return (self.height if self.rows is None else self.rows, columns if self.cols is None else self.cols)

    def bitmap_bytes(self, columns: int) -> int:
        """Return the length of both bitmaps in bytes, before compression."""
        return (0 if self.rows is None else -(-self.height // 8)) + (0 if self.cols is None else -(-columns // 8))

    def check(self, spec: TensorSpec, columns: int, is_only: bool) -> None:
        """Check that a tensor may have this block.

        Parameters
        ----------
        spec : TensorSpec
            Spec of the tensor.
        columns : int
            Its columns, viewed as a matrix.
        is_only : bool
            Whether the block is its only one.

        Raises
        ------
        ValueError
            Rules B2 and B3.
        """
        if spec.dtype not in CODED_DTYPES or not spec.elements:
            raise ValueError(f"expected elements of F16, BF16, F32 or F64 in a coded block, got {spec}")
        for chosen, whole in ((self.rows, self.height), (self.cols, columns)):
            if chosen is not None and not 0 < chosen < whole:
                raise ValueError(f"expected a subset of 1 to {whole - 1} rows or columns, got {chosen}")


def subset_json(block: SubsetBlock, own: BaseRows) -> dict[str, Json]:
    """Return the fields that all coded kinds have; the inverse of `parse_subset`. For `own` see `base_json`."""
    counts: dict[str, Json] = {
        key: count for key, count in (("rows", block.rows), ("cols", block.cols)) if count is not None
    }
    return counts | base_json(block.base, own)


def parse_subset(fields: Fields, own: BaseRows) -> tuple[BaseRows | None, int | None, int | None]:
    """Return base rows and numbers of coded rows and columns; the inverse of `subset_json`."""
    return parse_base(fields, own), fields.take("rows", int, None), fields.take("cols", int, None)


# Bitmaps


def pack_bitmap(mask: NDArray[np.bool_]) -> bytes:
    """Pack a mask of n flags into ceil(n / 8) bytes, low bit first; the inverse of `unpack_bitmap`."""
    return np.packbits(mask, bitorder="little").tobytes()


def unpack_bitmap(data: bytes, count: int) -> NDArray[np.bool_]:
    """Unpack ceil(count / 8) bytes into a mask of `count` flags; the inverse of `pack_bitmap`.

    Raises
    ------
    ValueError
        Padding bits are set.
    """
    flags = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").view(np.bool_)
    if flags[count:].any():
        raise ValueError("expected padding bits of zero")
    return flags[:count]


def join_masks(rows: Mask | None, cols: Mask | None) -> bytes:
    """Return the bitmaps of a block; the inverse of `split_masks`."""
    return b"".join(pack_bitmap(mask) for mask in (rows, cols) if mask is not None)


def split_masks(block: SubsetBlock, columns: int, streams: Streams) -> tuple[Mask | None, Mask | None]:
    """Return masks of the coded rows and columns, None for all of them; the inverse of `join_masks`.

    Parameters
    ----------
    block : SubsetBlock
        The block.
    columns : int
        Columns of its tensor, viewed as a matrix.
    streams : Streams
        The block's streams.

    Raises
    ------
    FormatError
        The number of bits set in a bitmap differs from the block's, or padding bits are set (rule W1).
    """
    masks: list[Mask | None] = []
    begin = 0
    # The bitmap of rows, then that of columns, each padded to a byte (section 5.1).
    for chosen, whole in ((block.rows, block.height), (block.cols, columns)):
        mask = None
        if chosen is not None:
            end = begin + -(-whole // 8)
            try:
                mask = unpack_bitmap(streams.bitmaps[begin:end], whole)
            except ValueError as error:
                raise FormatError("rows", "bitmap", str(error), "5.1") from error
            # Rule W1: as many bits set as the index says.
            if mask.sum() != chosen:
                raise FormatError("rows", "bitmap", f"expected {chosen} bits set, got {mask.sum()}", "5.1")
            begin = end
        masks.append(mask)
    return masks[0], masks[1]


# Vectors and delta


def check_vectors(given: Vectors) -> PackedVectors:
    """Return vectors in packed form, after checking them (spec sections 5.2 and 5.3).

    Parameters
    ----------
    given : Vectors
        Vectors of one width with their levels.

    Raises
    ------
    FormatError
        Levels do not ascend (rule N2), padding is not zero (rule E1), or a floating-point code is not finite
        (rule E2).
    """
    vectors = given.pack()
    # Rule N2: levels ascend; equal neighbours are allowed.
    if (np.diff(vectors.levels, axis=1) < 0).any():
        raise FormatError("numbers", "levels", "expected levels that ascend", "5.2")
    # Rule E1.
    if not padding_is_zero(vectors.packed, vectors.count, vectors.bits):
        raise FormatError("padding", "codes", "expected padding bits of zero", "5.3")
    # Rule E2: codes of 16 bits are half-precision numbers, which may be infinite or NaN.
    if width_of(vectors.bits).is_float:
        codes = unpack_codes(np.ascontiguousarray(vectors.packed), vectors.count, vectors.bits)
        if not np.isfinite(codes.astype(np.float32)).all():
            raise FormatError("numbers", "codes", f"expected finite {vectors.bits}-bit codes", "5.3")
    return vectors


@dataclass(frozen=True, slots=True)
class CodedDelta:
    """The dequantized delta of a coded block: dense, or as two factors.

    Parameters
    ----------
    rows, cols : bool mask or None
        Coded rows and columns; None for all.
    left : float [coded rows, r]
        U S of a low-rank block. If `right` is None, the delta itself, [coded rows, coded columns].
    right : float [r, coded columns] or None
        V^T of a low-rank block; None for other kinds.
    """

    rows: Mask | None
    cols: Mask | None
    left: Floats
    right: Floats | None

    def dense(self) -> Floats:
        """Return the delta of the coded rows and columns: float [coded rows, coded columns]."""
        with np.errstate(over="ignore", invalid="ignore"):  # A pack may hold numbers with an overflowing product.
            return self.left if self.right is None else self.left @ self.right

    def place(self, height: int, columns: int) -> Floats:
        """Return the delta of the whole block, float [height, columns]; zero outside coded rows and columns."""
        if self.rows is None and self.cols is None:
            return self.dense()
        whole = np.zeros((height, columns), self.left.dtype)
        whole[self.where(height, columns)] = self.dense()
        return whole

    def where(self, height: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the index of the coded rows and columns of a [height, columns] array."""
        rows = np.arange(height) if self.rows is None else np.flatnonzero(self.rows)
        cols = np.arange(columns) if self.cols is None else np.flatnonzero(self.cols)
        # The cross product of both.
        return np.ix_(rows, cols)  # type: ignore[return-value]
