"""Planning of a pack: its header, arenas and size, from the lengths of its contents (spec sections 3.2 and 9)."""

from collections.abc import Mapping
from dataclasses import replace

from dtscodec.format.container import DIGEST_BYTES, ArenaSpec, arena_spec_bytes, pack_header_bytes, padding_before
from dtscodec.format.digests import digest_block_size
from dtscodec.format.index import Index
from dtscodec.format.index_json import index_text
from dtscodec.format.layout import lay_out
from dtscodec.format.primitives.zstd_frames import INDEX_LEVEL, compress
from dtscodec.format.streams import ARENA_ITEM_BYTES, NUMBER_DTYPES
from dtscodec.format.summary import Summary


def plan_file(
    summary: Summary, lengths: Mapping[str, int], tensors: int, leaves: int, numbers: str
) -> tuple[bytes, dict[str, ArenaSpec]]:
    """Return the header of a file, and dtype and shape of its arenas.

    Parameters
    ----------
    summary : Summary
        The summary; its `tensors` and `block` are replaced.
    lengths : mapping of str to int
        Content of each arena except `digests`, in bytes, in file order; none is 0.
    tensors, leaves : int
        Number of tensors of the fine-tune, and of base tensors used.
    numbers : {"F32", "BF16"}
        Dtype of the arena `numbers`.
    """
    summary = replace(summary, tensors=tensors, block=digest_block_size(sum(lengths.values())))
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
    offset = 0
    for name, following in zip(names, [*names[1:], ""], strict=True):
        dtype, shape = contents[name]
        offset += arena_spec_bytes(dtype, shape)
        padding = padding_before(following, offset)
        if padding:  # It belongs to the arena before it.
            planned[name] = (dtype, (shape[0] + padding // ARENA_ITEM_BYTES[dtype],))
            offset += padding
    return {"digests": ("U8", (1 + -(-offset // block), DIGEST_BYTES))} | planned
