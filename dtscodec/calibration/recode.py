"""A pack with other streams of the same shapes: codes, levels and scales that something has fitted better."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata, PackReport
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Block, Coded
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.linalg.factored_matrix import delta_square
from dtscodec.packs.pack import Pack

Floats = NDArray[np.float32]


def recode(
    assembler: PackAssembler, pack: Pack, streams: Mapping[str, Sequence[Streams]], encoder: str | None = None
) -> PackReport:
    """Write a pack of the same index with other streams.

    Parameters
    ----------
    assembler : PackAssembler
        Empty, for the pack's dtype of numbers.
    pack : Pack
    streams : mapping of str to sequence of Streams
        By tensor those of each of its blocks, in order, with numbers that `ordered` made. Tensors that are not named
        retain theirs. Norms are computed anew.
    encoder : str, optional
        Text for the summary on how the pack was made.

    Raises
    ------
    EncodeError
        A number is beyond what a pack can store.
    """
    for entry in pack.index.tensors:
        if entry.name in streams:
            new = zip(entry.blocks, streams[entry.name], strict=True)
            blocks = [_with_norm(entry.name, entry.columns, *one) for one in new]
        else:
            blocks = [stored for _, _, stored in pack.reader.blocks(entry.name)]
        assembler.add(EncodedTensor(entry, blocks, Squares()))
    index, summary = pack.index, replace(pack.summary, encoder=encoder or pack.summary.encoder)
    metadata = PackMetadata(summary, index.prefix, index.absent, index.metadata, pack.auxiliary_files())
    return assembler.finish(metadata, pack.reader.leaves).extended(PackReport)


def _with_norm(name: str, columns: int, block: Block, streams: Streams) -> Streams:
    """A block's streams with the norm that belongs to them, if it has one."""
    numbers = streams.numbers.copy()
    if block.is_coded and block.has_norm:
        with np.errstate(over="ignore", invalid="ignore"):
            numbers[0] = delta_square(block.split(columns, streams).delta(np.float64)) ** 0.5
    if not np.isfinite(numbers).all():
        raise EncodeError(f"{name}: expected numbers that float32 can hold, got larger ones")
    return replace(streams, numbers=numbers)


def ordered(block: Coded, columns: int, numbers: Floats, dtype: str) -> Floats:
    """A block's numbers as a pack can hold them: rounded to their dtype, levels ascending (rule N2).

    Parameters
    ----------
    block : Values or LowRank
    columns : int
        Of its tensor.
    numbers : float32 [count]
        In the order of its kind (spec section 5).
    dtype : {"F32", "BF16"}
    """
    rounded = round_numbers(numbers, dtype)
    for levels in block.code_books(rounded, columns):
        np.maximum.accumulate(levels, axis=1, out=levels)
    return rounded
