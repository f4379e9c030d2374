"""Positions of streams in the arenas; they follow from the index alone (spec section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from dtscodec.format.index import CarriedFile, Index

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
        Carried files, in bytes of the arena `raw`.
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
    for entry in index.tensors:
        blocks[entry.name] = []
        for block in entry.blocks:
            sizes = block.stream_sizes(entry.columns, entry.spec.dtype)
            place = BlockSpans(rows.take(sizes.bitmaps), numbers.take(sizes.numbers), [], raw.take(sizes.raw))
            blocks[entry.name].append(place)
            coded.append((place, sizes.bands))
    codes = _place_bands(coded)
    files = {file.name: raw.take(file.stored) for file in index.files if isinstance(file, CarriedFile)}
    return Layout(blocks, files, rows.end, numbers.end, codes, raw.end)


def _place_bands(coded: Sequence[tuple[BlockSpans, tuple[int, ...]]]) -> int:
    """Assign the spans of all first bands, then of all second ones, and so on; return their total length."""
    codes = _Cursor()
    for band in count():
        waiting = [(place, lengths) for place, lengths in coded if len(lengths) > band]
        if not waiting:
            return codes.end
        for place, lengths in waiting:
            place.bands.append(codes.take(lengths[band]))
        coded = waiting
    raise AssertionError("unreachable")
