"""Kinds of block: how consecutive rows of one tensor are stored (spec section 6). One file per kind.

Every kind has

- `kind`, its name in the index; `height`, its number of rows; `base`, the base rows that it uses, or None; `tied_to`,
  the tensor that it equals, or None; and `is_coded`, whether it adds a delta to the base;
- `to_json` and its inverse `from_json`, and `check`, which validates the block against its tensor;
- `stream_sizes`, which follow from the block and its tensor's dtype and columns; `split`, from streams to their
  content, and its inverse `join`.

A coded kind also has `rank`, `widths`, `has_norm`, `coded_shape`, `number_count`, `band_bytes` and `code_books`, and
its content has `delta`.
"""

from typing import Final, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import assert_never
from dtscodec.format.blocks.band import Band, BandFactors, BandPlace
from dtscodec.format.blocks.base_rows import BaseRows
from dtscodec.format.blocks.coded import CodedDelta, Mask, join_masks
from dtscodec.format.blocks.lowrank import MAX_COMPONENTS, LowRank, LowRankContent
from dtscodec.format.blocks.raw import Raw
from dtscodec.format.blocks.same import Same
from dtscodec.format.blocks.tie import Tie
from dtscodec.format.blocks.values import Values, ValuesContent
from dtscodec.format.dtypes import DType
from dtscodec.format.primitives.canonical_json import Fields
from dtscodec.format.streams import Streams

__all__ = [
    "KINDS",
    "MAX_COMPONENTS",
    "Band",
    "BandFactors",
    "BandPlace",
    "BaseRows",
    "Block",
    "Coded",
    "CodedContent",
    "CodedDelta",
    "Content",
    "LowRank",
    "LowRankContent",
    "Mask",
    "Raw",
    "Same",
    "Tie",
    "Values",
    "ValuesContent",
    "is_unchanged",
    "join_masks",
    "parse_block",
    "split_streams",
]

Coded: TypeAlias = Values | LowRank
"""The coded kinds."""

Block: TypeAlias = Same | Tie | Raw | Coded
"""Every kind."""

CodedContent: TypeAlias = ValuesContent | LowRankContent
"""The content of coded blocks."""

Content: TypeAlias = NDArray[np.uint8] | CodedContent | None
"""The content of a block's streams: exact bytes, codes with their numbers, or None if it stores nothing."""

_KINDS: Final[dict[str, type[Block]]] = {kind.kind: kind for kind in get_args(Block)}

KINDS: Final = tuple(_KINDS)
"""Names of the kinds."""


def is_unchanged(block: Block) -> bool:
    """Return whether a block equals the base's rows."""
    return block.base is not None and not block.is_coded


def parse_block(fields: Fields, height: int, own: BaseRows) -> Block:
    """Read a block; the inverse of its `to_json`.

    Parameters
    ----------
    fields : Fields
        The block's JSON object. Fields that remain are left to the caller.
    height : int
        Rows of the block.
    own : BaseRows
        The base rows that the block uses unless it names others.

    Raises
    ------
    ValueError
        Rule B3.
    OverflowError
        There are too many components.
    UnsupportedError
        An unknown kind.
    """
    kind = fields.take("kind", str)
    if kind not in _KINDS:
        fields.unknown(f"kind {kind!r}", "4.3")
    return _KINDS[kind].from_json(fields, height, own)


def split_streams(block: Block, columns: int, streams: Streams, dtype: DType) -> Content:
    """Return the content of a block's streams, after checking it; the inverse of the kind's `join`.

    Parameters
    ----------
    block : Block
        The block.
    columns : int
        Columns of its tensor, viewed as a matrix.
    streams : Streams
        The block's streams.
    dtype : DType
        Dtype of its tensor.

    Raises
    ------
    FormatError
        Rules W1, N2, E1, E2 and P2.
    """
    match block:
        case Same() | Tie():
            return None
        case Raw():
            return block.split(columns, streams, dtype)
        case Values() | LowRank():
            return block.split(columns, streams)
        case _:
            assert_never(block)
