"""A pack with other streams of the same shapes: codes, levels and scales that something has fitted better."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Block, LowRank, Values
from dtscodec.format.index import CarriedFile
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.format.writer import PackWriter
from dtscodec.kernels.dequantize import dequantize
from dtscodec.linalg.factored_matrix import factored
from dtscodec.packs.pack import Pack
from dtscodec.quantize.widths import Width

Floats = NDArray[np.float32]


def recode(
    pack: Pack, streams: Mapping[str, Sequence[Streams]], file: BinaryIO, folder: Path, encoder: str | None = None
) -> str:
    """Write a pack of the same index.

    Parameters
    ----------
    pack : Pack
    streams : mapping
        By tensor those of each of its blocks, in order, with numbers that `ordered` made; tensors that are not named
        keep theirs. Norms are computed anew.
    file : binary file
        Open for writing and seeking, empty.
    folder : Path
        Where long streams may wait.
    encoder : str, optional
        What the pack is to say of how it was made.

    Returns
    -------
    str
        The new pack's id.

    Raises
    ------
    EncodeError
        A number is beyond what a pack holds.
    """
    with PackWriter(pack.reader.numbers_dtype, folder) as writer:
        for entry in pack.index.tensors:
            if entry.name in streams:
                new = zip(entry.blocks, streams[entry.name], strict=True)
                writer.add(entry, [_with_norm(entry.name, entry.columns, *one) for one in new])
            else:
                writer.add(entry, [kept for _, _, kept in pack.reader.blocks(entry.name)])
        for attached in pack.index.files:
            if isinstance(attached, CarriedFile):
                writer.carry_file(attached.name, pack.reader.file(attached))
            else:
                writer.name_file(attached.name, attached.digest)
        index, summary = pack.index, replace(pack.summary, encoder=encoder or pack.summary.encoder)
        return writer.write(
            file, summary, pack.reader.leaves, prefix=index.prefix, absent=index.absent, metadata=index.metadata
        ).hex()


def _with_norm(name: str, columns: int, block: Block, streams: Streams) -> Streams:
    """A block's streams with the norm that belongs to them, if it has one."""
    numbers = streams.numbers.copy()
    if isinstance(block, LowRank):
        with np.errstate(over="ignore", invalid="ignore"):
            coded = dequantize(block, columns, streams, np.float64)
            numbers[0] = factored(coded).square() ** 0.5
    if not np.isfinite(numbers).all():
        raise EncodeError(f"{name}: expected numbers that float32 can hold, got larger ones")
    return replace(streams, numbers=numbers)


def ordered(block: Block, numbers: Floats, dtype: str) -> Floats:
    """A block's numbers as a pack can hold them: rounded to their dtype, levels ascending (rule N2).

    Parameters
    ----------
    block : Block
    numbers : float32 [count]
        In the order of its kind (spec section 5).
    dtype : {"F32", "BF16"}
    """
    rounded = round_numbers(numbers, dtype)
    for tables, width in _tables(block):
        levels = width.code_books(rounded[tables])
        rounded[tables] = np.maximum.accumulate(levels, axis=1).ravel()
    return rounded


def _tables(block: Block) -> list[tuple[slice, Width]]:
    """Where the level tables of a block are among its numbers, and whose they are."""
    if isinstance(block, Values):
        return [(slice(0, block.width.stored_levels), block.width)]
    if not isinstance(block, LowRank):
        return []
    found, begin = [], 1
    for band in block.bands:
        levels = 2 * band.width.stored_levels * band.table_count(block.per_vector)
        found.append((slice(begin, begin + levels), band.width))
        begin += band.number_count(block.per_vector)
    return found
