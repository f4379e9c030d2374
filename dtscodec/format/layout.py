"""The layout of a pack: spans of streams in the arenas, and the arenas of the file (spec sections 3.2, 5 and 9).

Spans follow from the index alone, so that the size of a pack is known before any tensor is coded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeAlias

from dtscodec.format.container import DIGEST_BYTES, ArenaSpec, arena_spec_bytes, pack_header_bytes, padding_before
from dtscodec.format.digests import digest_block_size
from dtscodec.format.index import Index, NamedFile
from dtscodec.format.index_json import index_text
from dtscodec.format.primitives.zstd_frames import INDEX_LEVEL, compress
from dtscodec.format.streams import ARENA_ITEM_BYTES, NUMBER_DTYPES
from dtscodec.format.summary import Summary

Span: TypeAlias = tuple[int, int]
"""Begin and end, in bytes, or in numbers in the arena `numbers`."""


@dataclass(slots=True)
class BlockSpans:
    """The spans of one block's streams in the arenas.

    Parameters
    ----------
    rows : Span
        Its bitmaps, in bytes of the uncompressed arena `rows`.
    numbers : Span
        Its numbers, counted in the arena `numbers`.
    bands : list of Span
        Its codes, band by band, in bytes of the arena `codes`.
    raw : Span
        Its exact bytes, in bytes of the arena `raw`.
    """

    rows: Span
    numbers: Span
    bands: list[Span]
    raw: Span


@dataclass(frozen=True, slots=True)
class Layout:
    """The spans of all blocks and files, and the length of each arena's content.

    Parameters
    ----------
    blocks : dict of str to list of BlockSpans
        The blocks of each tensor, in order.
    files : dict of str to Span
        Carried and changed files, in bytes of the arena `raw`.
    rows, codes, raw : int
        Content of these arenas, in bytes; of `rows` before compression.
    numbers : int
        Count of numbers.
    """

    blocks: dict[str, list[BlockSpans]]
    files: dict[str, Span]
    rows: int
    numbers: int
    codes: int
    raw: int


class _Cursor:
    """The end of the spans that have been taken of an arena."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, length: int) -> Span:
        begin, self.end = self.end, self.end + length
        return begin, self.end


def lay_out(index: Index) -> Layout:
    """Compute the spans of all blocks and carried files of a pack.

    Raises
    ------
    ValueError
        Plane lengths that do not fit their block (rule P1).
    """
    rows, numbers, raw = _Cursor(), _Cursor(), _Cursor()
    blocks: dict[str, list[BlockSpans]] = {}
    coded: list[tuple[BlockSpans, tuple[int, ...]]] = []
    # Bitmaps, numbers and exact bytes lie in the order of blocks.
    for entry in index.tensors:
        blocks[entry.name] = []
        for block in entry.blocks:
            sizes = block.stream_sizes(entry.columns, entry.spec.dtype)
            place = BlockSpans(rows.take(sizes.bitmaps), numbers.take(sizes.numbers), [], raw.take(sizes.raw))
            blocks[entry.name].append(place)
            coded.append((place, sizes.bands))
    # Codes lie band by band; files follow the exact bytes.
    codes = _place_bands(coded)
    files = {file.name: raw.take(file.stored) for file in index.files if not isinstance(file, NamedFile)}
    return Layout(blocks, files, rows.end, numbers.end, codes, raw.end)


def _place_bands(coded: Sequence[tuple[BlockSpans, tuple[int, ...]]]) -> int:
    """Assign the spans of all first bands, then of all second ones, and so on; return their total length."""
    codes = _Cursor()
    for band in count():
        # Blocks leave the list after their last band.
        waiting = [(place, lengths) for place, lengths in coded if len(lengths) > band]
        if not waiting:
            return codes.end
        for place, lengths in waiting:
            place.bands.append(codes.take(lengths[band]))
        coded = waiting
    raise AssertionError("unreachable")


def plan_file(
    summary: Summary, lengths: Mapping[str, int], tensors: int, leaves: int, numbers: str
) -> tuple[bytes, dict[str, ArenaSpec]]:
    """Return the header of a file, and dtype and shape of its arenas.

    Parameters
    ----------
    summary : Summary
        The summary; its `tensors` and `block` are replaced, and `content` is dropped.
    lengths : mapping of str to int
        Content of each arena except `digests`, in bytes, in file order; none is 0.
    tensors, leaves : int
        Number of tensors of the fine-tune, and of base tensors used.
    numbers : {"F32", "BF16"}
        Dtype of the arena `numbers`.
    """
    # From the contents without padding, as `PackWriter.write` computes it.
    # A residual layer is added to a whole pack, and is of that pack alone.
    block = digest_block_size(sum(lengths.values()))
    summary = replace(summary, tensors=tensors, block=block, content=None)
    arenas = plan_arenas({name: _arena_spec(name, lengths[name], leaves, numbers) for name in lengths}, summary.block)
    return pack_header_bytes(summary, arenas), arenas


def planned_size(index: Index, summary: Summary, bitmaps: bytes, leaf_bytes: int, numbers: str) -> int:
    """Return the size in bytes of the pack of an index, which follows without coding any tensor.

    Parameters
    ----------
    index : Index
        The index.
    summary : Summary
        The summary; its `tensors` and `block` are ignored.
    bitmaps : bytes
        Bitmaps of all blocks, in order.
    leaf_bytes : int
        Length of a base tensor's leaf in the pack.
    numbers : {"F32", "BF16"}
        Dtype in which numbers are stored.
    """
    # All lengths follow from the index, except those of compressed arenas, which are compressed here.
    layout = lay_out(index)
    leaves = len(index.base_names())
    lengths = {
        "base": leaves * leaf_bytes,
        "index": len(compress(index_text(index), INDEX_LEVEL)),
        "rows": len(compress(bitmaps, INDEX_LEVEL)) if bitmaps else 0,
        "numbers": layout.numbers * NUMBER_DTYPES[numbers],
        "codes": layout.codes,
        "raw": layout.raw,
    }
    lengths = {name: length for name, length in lengths.items() if length}
    header, arenas = plan_file(summary, lengths, len(index.tensors), leaves, numbers)
    return len(header) + sum(arena_spec_bytes(*spec) for spec in arenas.values())


def _arena_spec(name: str, length: int, leaves: int, numbers: str) -> ArenaSpec:
    """Return dtype and shape of the arena `name` with a content of `length` bytes."""
    if name == "numbers":
        return numbers, (length // NUMBER_DTYPES[numbers],)
    return "U8", (leaves, length // leaves) if name == "base" else (length,)


def plan_arenas(contents: Mapping[str, ArenaSpec], block: int) -> dict[str, ArenaSpec]:
    """Return the arenas of a file: those of its contents with padding, after the arena `digests`.

    Parameters
    ----------
    contents : mapping of str to ArenaSpec
        Each arena except `digests`, without padding, in file order; none is empty.
    block : int
        Size of a digest block in bytes.
    """
    planned = dict(contents)
    names = list(contents)
    # Counted from the end of `digests`, which is a multiple of 32 bytes long and so does not affect alignment.
    offset = 0
    for name, following in zip(names, [*names[1:], ""], strict=True):
        dtype, shape = contents[name]
        offset += arena_spec_bytes(dtype, shape)
        padding = padding_before(following, offset)
        if padding:  # It belongs to the arena before it.
            planned[name] = (dtype, (shape[0] + padding // ARENA_ITEM_BYTES[dtype],))
            offset += padding
    # A row for the pack id, then one per digest block, the last of which may be shorter.
    return {"digests": ("U8", (1 + -(-offset // block), DIGEST_BYTES))} | planned
