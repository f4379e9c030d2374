"""Bytes of a pack by tensor, by kind of block, and by arena."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dtscodec.format.blocks import KINDS
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import FileEntry, NamedFile, TensorEntry
from dtscodec.packs.pack import Pack


@dataclass(frozen=True, slots=True)
class TensorSize:
    """The size of one tensor in a pack.

    Parameters
    ----------
    name : str
        Name in the fine-tune.
    spec : TensorSpec
        Dtype and shape.
    kind : str
        Its kinds of block, joined by ``+``.
    size : int
        Bytes of its codes, numbers and exact bytes, without the parts that tensors share (index, bitmaps, digests).
    ranks : tuple of int
        Components of each low-rank block.
    bits : tuple of int
        Widths that occur, ascending.
    without_base : bool
        Whether a block is coded against zeros, as blocks without counterpart may be.
    """

    name: str
    spec: TensorSpec
    kind: str
    size: int
    ranks: tuple[int, ...]
    bits: tuple[int, ...]
    without_base: bool


def tensor_sizes(pack: Pack) -> list[TensorSize]:
    """Return the size of each tensor of a pack, names ascending."""
    return [_tensor_size(pack, entry) for entry in pack.index.tensors]


def bitmap_bytes(pack: Pack) -> int:
    """Return the bytes of the compressed bitmaps of all tensors."""
    return pack.reader.arena_bytes().get("rows", 0)


def overhead(pack: Pack, sizes: Iterable[TensorSize]) -> int:
    """Return the bytes of header, digests, index and padding, which belong to no tensor or file."""
    # All bytes of the front but those of files, bitmaps and tensors.
    return (
        pack.reader.front_bytes
        - file_bytes(pack.index.files)
        - bitmap_bytes(pack)
        - sum(tensor.size for tensor in sizes)
    )


def residual_bytes(pack: Pack) -> int:
    """Return the bytes of the residual layer; 0 for a pack without one."""
    return pack.size - pack.reader.front_bytes


def file_bytes(files: Iterable[FileEntry]) -> int:
    """Return the bytes of carried and changed files."""
    return sum(file.stored for file in files if not isinstance(file, NamedFile))


def kind_totals(sizes: Iterable[TensorSize]) -> dict[str, tuple[int, int, int]]:
    """Return tensors, parameters and bytes of each kind that occurs.

    A tensor of several kinds counts as ``mixed``.
    """
    totals: dict[str, Counter[str]] = {}
    for tensor in sizes:
        kind = "mixed" if "+" in tensor.kind else tensor.kind
        totals.setdefault(kind, Counter()).update(tensors=1, parameters=tensor.spec.elements, bytes=tensor.size)
    order = [kind for kind in (*KINDS, "mixed") if kind in totals]
    return {kind: (totals[kind]["tensors"], totals[kind]["parameters"], totals[kind]["bytes"]) for kind in order}


def _tensor_size(pack: Pack, entry: TensorEntry) -> TensorSize:
    size = 0
    # Bitmaps are compressed together, so no tensor has a share of them.
    for place in pack.reader.block_spans(entry.name):
        size += sum(end - begin for begin, end in [*place.bands, place.raw])
        size += (place.numbers[1] - place.numbers[0]) * pack.reader.number_bytes
    present = {block.kind for block in entry.blocks}
    kinds = "+".join(kind for kind in KINDS if kind in present)
    coded = [block for block in entry.blocks if block.is_coded]
    bits = {width for block in coded for width in block.widths}
    without_base = any(block.base is None for block in coded)
    ranks = tuple(block.rank for block in coded if block.rank)
    return TensorSize(entry.name, entry.spec, kinds, size, ranks, tuple(sorted(bits)), without_base)
