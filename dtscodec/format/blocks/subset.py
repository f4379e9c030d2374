"""Coded rows and columns: what the coded kinds share, their JSON, and their bitmaps (spec sections 4.3 and 5.1)."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import FormatError
from dtscodec.format.blocks.base_rows import BaseRows, base_json, parse_base
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.primitives.bitmaps import pack_bitmap, unpack_bitmap
from dtscodec.format.primitives.canonical_json import Json
from dtscodec.format.primitives.json_fields import Fields
from dtscodec.format.streams import Streams

Mask: TypeAlias = NDArray[np.bool_]
"""Flags of rows or columns: True where they are coded."""


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
        """Return the numbers of coded rows and columns, of a tensor of so many columns."""
        return (self.height if self.rows is None else self.rows, columns if self.cols is None else self.cols)

    def bitmap_bytes(self, columns: int) -> int:
        """Return the length of both bitmaps in bytes, before compression."""
        return (0 if self.rows is None else -(-self.height // 8)) + (0 if self.cols is None else -(-columns // 8))

    def check(self, spec: TensorSpec, columns: int, is_only: bool) -> None:
        """Raise ValueError unless the block can be coded in such a tensor (rules B2 and B3)."""
        if spec.dtype not in CODED_DTYPES or not spec.elements:
            raise ValueError(f"expected elements of F16, BF16, F32 or F64 in a coded block, got {spec}")
        for chosen, whole in ((self.rows, self.height), (self.cols, columns)):
            if chosen is not None and not 0 < chosen < whole:
                raise ValueError(f"expected a subset of 1 to {whole - 1} rows or columns, got {chosen}")


def subset_json(block: SubsetBlock, own: BaseRows) -> dict[str, Json]:
    """Return the fields that all coded kinds have; the inverse of `parse_subset`."""
    counts: dict[str, Json] = {
        key: count for key, count in (("rows", block.rows), ("cols", block.cols)) if count is not None
    }
    return counts | base_json(block.base, own)


def parse_subset(fields: Fields, own: BaseRows) -> tuple[BaseRows | None, int | None, int | None]:
    """Read base, coded rows and coded columns; the inverse of `subset_json`."""
    return parse_base(fields, own), fields.take("rows", int, None), fields.take("cols", int, None)


def join_masks(rows: Mask | None, cols: Mask | None) -> bytes:
    """Return the bitmaps of a block; the inverse of `split_masks`."""
    return b"".join(pack_bitmap(mask) for mask in (rows, cols) if mask is not None)


def split_masks(block: SubsetBlock, columns: int, streams: Streams) -> tuple[Mask | None, Mask | None]:
    """Return masks of the coded rows and columns, None for all of them; the inverse of `join_masks`.

    Raises
    ------
    FormatError
        A bitmap has other bits set than its block says (rule W1).
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
