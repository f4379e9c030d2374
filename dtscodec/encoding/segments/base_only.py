"""No delta at all: tensors with a counterpart are left at the base's values, for the residual layer to restore."""

from dtscodec.checkpoints.names.expert_layouts import Parts
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.delta import shared_part
from dtscodec.encoding.segments.encoded_block import EncodedBlock, raw_block, same_block
from dtscodec.format.blocks import BaseRows


def base_blocks(fine: StoredTensor, base: StoredTensor, parts: Parts) -> tuple[list[EncodedBlock], int]:
    """Return the blocks of a tensor that is its counterpart, and the split; arguments are those of `leave_at_base`."""
    if parts:
        blocks = [same_block(part.height, BaseRows(part.name, part.first)) for part in parts]
        return blocks, len(fine.spec.shape) - 1
    return [same_block(fine.spec.matrix()[0], BaseRows(base.name, 0))], 1


def leave_at_base(fine: StoredTensor, base: StoredTensor | None, parts: Parts = ()) -> tuple[list[EncodedBlock], int]:
    """Return the blocks of a tensor, and the split that makes rows of it.

    Parameters
    ----------
    fine : StoredTensor
        The fine-tune's tensor.
    base : StoredTensor or None
        Its counterpart in the base; None if there is none.
    parts : Parts
        The rows of base tensors that the counterpart was joined from; empty if it is one base tensor.
    """
    if base is None:
        return [raw_block(fine)], 1
    if parts or fine.spec == base.spec:
        return base_blocks(fine, base, parts)
    # A grown vocabulary, a head for other classes, or another dtype.
    shared = shared_part(fine, base)
    if shared is None:
        return [raw_block(fine)], 1
    rows = shared[0].spec.matrix()[0]
    blocks = [same_block(rows, BaseRows(base.name, 0))]
    if rows < fine.spec.matrix()[0]:
        blocks.append(raw_block(fine.cut(rows, fine.spec.shape[0])))
    return blocks, 1
