"""Kinds of block: how consecutive rows of one tensor are stored (spec section 6). One file a kind.

Every kind has

- `kind`, its name in the index; `height`, its rows; `base`, the base rows that it is made from, or None;
  `tied_to`, the tensor that it equals, or None; `is_coded`, whether it adds a delta to its base;
- `to_json` and `from_json`, inverses; `check` against the tensor that it stands in;
- `stream_sizes`, which follow from it and its tensor's dtype and columns; `split`, which turns its streams into what
  they hold, and `join`, the inverse.

A coded kind also has `rank`, `widths`, `has_norm`, `coded_shape`, `number_count`, `band_bytes` and `code_books`; what
it is split into has `delta`.
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
"""What coded kinds are split into."""

Content: TypeAlias = NDArray[np.uint8] | CodedContent | None
"""What kinds are split into: exact bytes, codes with their numbers, or nothing."""

_KINDS: Final[dict[str, type[Block]]] = {kind.kind: kind for kind in get_args(Block)}

KINDS: Final = tuple(_KINDS)
"""Names of the kinds."""


def is_unchanged(block: Block) -> bool:
    """Return whether a block is the base's rows as they are."""
    return block.base is not None and not block.is_coded


def parse_block(fields: Fields, height: int, own: BaseRows) -> Block:
    """Read a block; the inverse of its `to_json`.

    Parameters
    ----------
    fields : Fields
        Those of the block. What is left over is the caller's to refuse.
    height : int
        Rows of the block.
    own : BaseRows
        The base rows that it is made from unless it names others.

    Raises
    ------
    ValueError
        Rule B3; also OverflowError for too many components.
    UnsupportedError
        An unknown kind.
    """
    kind = fields.take("kind", str)
    if kind not in _KINDS:
        fields.unknown(f"kind {kind!r}", "4.3")
    return _KINDS[kind].from_json(fields, height, own)


def split_streams(block: Block, columns: int, streams: Streams, dtype: DType) -> Content:
    """Return what a block's streams hold, checked.

    Parameters
    ----------
    block : Block
    columns : int
        Of its tensor, seen as a matrix.
    streams : Streams
    dtype : DType
        Of its tensor.

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
