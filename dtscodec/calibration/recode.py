"""A pack of the same index with other streams: levels, scales and elements after a fit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata
from dtscodec.encoding.pack_report import PackReport
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Block, Coded
from dtscodec.format.claim import Claim
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.linalg.factored_matrix import delta_square
from dtscodec.packs.pack import Pack

_Floats = NDArray[np.float32]


def recode(
    assembler: PackAssembler,
    pack: Pack,
    streams: Mapping[str, Sequence[Streams]],
    encoder: str | None = None,
    claim: Claim | None = None,
) -> PackReport:
    """Write a pack of the same index with other streams, and return its report.

    Parameters
    ----------
    assembler : PackAssembler
        An empty one, with the pack's dtype of numbers.
    pack : Pack
        The pack whose index, metadata and auxiliary files are used.
    streams : mapping of str to sequence of Streams
        By tensor the streams of its blocks, in order, with numbers from `storable_numbers`. Other tensors retain
        theirs. Norms are computed here.
    encoder : str, optional
        The summary's text about the encoder; by default the pack's.
    claim : Claim, optional
        The claim about the new pack. That of `pack` is about other streams, and is dropped.

    Raises
    ------
    EncodeError
        A number overflows float32.
    """
    for entry in pack.index.tensors:
        if entry.name in streams:
            new = zip(entry.blocks, streams[entry.name], strict=True)
            blocks = [_with_norm(entry.name, entry.columns, *one) for one in new]
        else:
            blocks = [stored for _, _, stored in pack.reader.blocks(entry.name)]
        assembler.add(EncodedTensor(entry, blocks, Squares()))
    # Of the summary, the text about the encoder and the claim change.
    index, summary = pack.index, replace(pack.summary, encoder=encoder or pack.summary.encoder, claim=claim)
    files = pack.auxiliary_files()
    metadata = PackMetadata(summary, index.prefix, index.absent, index.metadata, files, index.stem, index.folders)
    return assembler.finish(metadata, pack.reader.leaves).extended(PackReport)


def _with_norm(name: str, columns: int, block: Block, streams: Streams) -> Streams:
    """Return a block's streams with the norm of the delta that they decode to, if the block stores a norm."""
    numbers = streams.numbers.copy()
    if block.is_coded and block.has_norm:
        # The norm comes first among the numbers; it is that of the decoded delta, in float64.
        with np.errstate(over="ignore", invalid="ignore"):
            numbers[0] = delta_square(block.split(columns, streams).delta(np.float64)) ** 0.5
    if not np.isfinite(numbers).all():
        raise EncodeError(f"{name}: expected numbers that float32 can hold, got larger ones")
    return replace(streams, numbers=numbers)


def storable_numbers(block: Coded, columns: int, numbers: _Floats, dtype: str) -> _Floats:
    """Return a block's numbers as a pack can store them: rounded to their dtype, levels ascending (rule N2).

    Parameters
    ----------
    block : Values or LowRank
        The block.
    columns : int
        Columns of its tensor.
    numbers : float32 [count]
        Its norm, levels and scales, in the order of its kind (spec section 5).
    dtype : {"F32", "BF16"}
        Dtype of the pack's numbers.

    Returns
    -------
    float32 [count]
    """
    rounded = round_numbers(numbers, dtype)
    # The code books are views of the numbers: this sorts in place, by raising levels to those before them.
    for levels in block.code_books(rounded, columns):
        np.maximum.accumulate(levels, axis=1, out=levels)
    return rounded
