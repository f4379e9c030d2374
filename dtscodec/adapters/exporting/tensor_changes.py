"""The tensors that a pack changes, with their deltas as factors where an adapter could carry them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.delta import delta_of
from dtscodec.format.blocks import Block, Raw, is_unchanged
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.index import TensorEntry
from dtscodec.format.naming import base_name
from dtscodec.linalg.chunks import squared_norm
from dtscodec.linalg.factored_matrix import Factored, delta_square, stack_blocks
from dtscodec.packs.pack import Pack

MOVED = "rows of another tensor of the base"
"""Description of a tensor that is stored as a copy of other base rows than its own counterpart's."""


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor that differs from the base's.

    Parameters
    ----------
    entry : TensorEntry
        The tensor in the pack's index.
    delta : Factored or None
        The delta as a matrix, float32; None if it is not of low rank.
    square : float or None
        Squared Frobenius norm of the delta; None if it is unknown, or the tensor is new.
    how : str
        How the tensor is stored, in words: ``"low rank"``, ``"new"``, ``"of another shape in the base"``, ``"stored
        exactly"``, ``"stored element by element"`` or `MOVED`, which includes the counterpart under another name.
    counterpart : str
        Name of the base tensor that the delta is added to. A new tensor has no such tensor.
    is_aligned : bool
        Whether the delta is added to the rows of that tensor in their order, from the first one on.
    """

    entry: TensorEntry
    delta: Factored | None
    square: float | None
    how: str
    counterpart: str
    is_aligned: bool


def iter_changes(pack: Pack, base: Base | None = None) -> Iterator[TensorChange]:
    """Yield the tensors that a pack changes, names ascending; of tied tensors only the stored one.

    Parameters
    ----------
    pack : Pack
        The pack.
    base : Base, optional
        The base. Without it the deltas of tensors that are stored exactly are unknown.

    Raises
    ------
    FormatError, CheckpointError
        The pack or the base is damaged.
    """
    for entry in pack.index.tensors:
        # Skip ties and tensors that equal the base's.
        if entry.tied_to is not None:
            continue
        if all(map(is_unchanged, entry.blocks)):
            name, is_aligned = _counterpart(pack, entry)
            if not is_aligned or name != base_name(entry.name, pack.index.prefix):
                yield TensorChange(entry, None, None, MOVED, name, is_aligned)
            continue
        if all(_is_low_rank(block) or is_unchanged(block) for block in entry.blocks):
            delta = _low_rank_delta(pack, entry)
            yield TensorChange(entry, delta, delta.square(), "low rank", *_counterpart(pack, entry))
        else:
            yield _other_change(pack, entry, base)


def _is_low_rank(block: Block) -> bool:
    return block.is_coded and block.rank > 0 and block.base is not None


def _low_rank_delta(pack: Pack, entry: TensorEntry) -> Factored:
    """Return the delta of a tensor of which every block is of low rank or the base's own rows."""
    heights = {row: block.height for row, block in entry.placed()}
    blocks = [(row, heights[row], coded) for row, coded in pack.factors(entry.name)]
    return stack_blocks(blocks, entry.spec.matrix(entry.split), torch.float32)


def _other_change(pack: Pack, entry: TensorEntry, base: Base | None) -> TensorChange:
    """Return the change of a tensor that is new, stored exactly, or stored element by element."""
    blocks, (name, is_aligned) = list(entry.blocks), _counterpart(pack, entry)
    # Exact bytes; else coded without a base; else coded element by element.
    if any(isinstance(block, Raw) for block in blocks):
        found = _exact_square(pack, entry, base)
        return TensorChange(entry, None, found, _how_exact(entry, name, base), name, is_aligned)
    if any(block.base is None for block in blocks):
        return TensorChange(entry, None, None, _how_exact(entry, name, base, "new"), name, is_aligned)
    total = sum(delta_square(coded) for _, coded in pack.factors(entry.name))
    return TensorChange(entry, None, total, "stored element by element", name, is_aligned)


def _how_exact(entry: TensorEntry, name: str, base: Base | None, otherwise: str = "stored exactly") -> str:
    """Return how a tensor with exact or new rows is stored. Without the base it is unknown whether it is new."""
    if base is None:
        return otherwise
    if name not in base.specs:
        return "new"
    return otherwise if base.specs[name].shape == entry.spec.shape else "of another shape in the base"


def _counterpart(pack: Pack, entry: TensorEntry) -> tuple[str, bool]:
    """Return the base tensor of a tensor, and whether its rows are that tensor's rows in their order."""
    rows = [(base.name, base.first, row) for row, block in entry.placed() if (base := block.base)]
    name = rows[0][0] if rows else base_name(entry.name, pack.index.prefix)
    return name, all((used, first) == (name, row) for used, first, row in rows)


def _exact_square(pack: Pack, entry: TensorEntry, base: Base | None) -> float | None:
    """Return the squared norm of the delta of a tensor that is one exact block, if its counterpart is known."""
    (name, _), block = _counterpart(pack, entry), entry.blocks[0]
    if base is None or not isinstance(block, Raw) or len(entry.blocks) > 1 or name not in base.specs:
        return None
    spec = base.specs[name]
    if spec.shape != entry.spec.shape or not {spec.dtype, entry.spec.dtype} <= CODED_DTYPES:
        return None
    ((_, _, stored),) = pack.reader.contents(entry.name)
    assert isinstance(stored, np.ndarray)
    return squared_norm(
        delta_of(StoredTensor(entry.name, entry.spec, stored), StoredTensor(name, spec, base.read(name)))
    )
