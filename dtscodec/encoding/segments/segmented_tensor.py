"""Checkpoint -> segments: rows of a tensor that equal the base's, are a delta from it, are new, or stay exact.

`segment_tensor` reads both checkpoints' bytes and retains the delta only, so that these bytes are free before the
memory-hungry part begins. The presets encode segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.checkpoints.names.expert_layouts import Parts
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.config import BaseOnly, EncodeConfig
from dtscodec.encoding.delta import delta_of, is_same, shared_part
from dtscodec.encoding.segments.base_only import base_blocks, leave_at_base
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import raw_block, same_block
from dtscodec.encoding.segments.exact_rows import exact_reason
from dtscodec.encoding.segments.segment import ElementSegment, MatrixSegment, NewSegment, Segment
from dtscodec.format.blocks import BaseRows
from dtscodec.format.dtypes import TensorSpec
from dtscodec.linalg.rounding_noise import rounding_noise

SMALLEST_MATRIX = 32
"""Least height and width of the matrices of a stack, such as fused experts."""


@dataclass(frozen=True, slots=True)
class SegmentedTensor:
    """A tensor and its segments.

    Parameters
    ----------
    spec : TensorSpec
        Dtype and shape.
    segments : sequence of Segment
        Segments of consecutive rows, in order.
    split : int
        Number of leading dimensions that make up the rows of the tensor as a matrix.
    """

    spec: TensorSpec
    segments: Sequence[Segment]
    split: int = 1


def segment_unchanged(fine: StoredTensor, base: StoredTensor | None, parts: Parts = ()) -> SegmentedTensor | None:
    """Return a tensor that equals its counterpart, as one segment or one for each part; None if it does not.

    Parameters
    ----------
    fine : StoredTensor
        The fine-tune's tensor.
    base : StoredTensor or None
        Its counterpart in the base; None if there is none.
    parts : Parts
        The rows of base tensors that the counterpart was joined from; empty if it is one base tensor.
    """
    if base is None or not is_same(fine, base):
        return None
    return SegmentedTensor(fine.spec, *base_blocks(fine, base, parts))


def segment_tensor(
    fine: StoredTensor,
    base: StoredTensor | None,
    config: EncodeConfig,
    is_companion: bool = False,
    parts: Parts = (),
) -> SegmentedTensor:
    """Divide a tensor that changed, or is new, into segments.

    Parameters
    ----------
    fine, base, parts
        As for `segment_unchanged`.
    config : EncodeConfig
        Holds the patterns of exact tensors, and the rule for which tensors are matrices.
    is_companion : bool
        Whether the tensor is a companion of a quantized weight, which is stored exactly.

    Raises
    ------
    EncodeError
        A tensor that is to be quantized holds NaN or infinity.
    """
    if isinstance(config.preset, BaseOnly) and not config.stores_exactly(fine.name):
        return SegmentedTensor(fine.spec, *leave_at_base(fine, base, parts))
    if exact_reason(fine, config, is_new=False, is_companion=is_companion):
        return SegmentedTensor(fine.spec, [raw_block(fine)])
    # The rows that both have and that are related; all others are new.
    shared = None if base is None else shared_part(fine, base)
    if shared is None:
        return SegmentedTensor(fine.spec, [_new_segment(fine, config)])
    if parts:
        segments, split = segment_parts(delta_of(*shared), fine, parts, config)
        return SegmentedTensor(fine.spec, segments, split)
    segments, split = _segment_shared(*shared, config, is_whole=shared[0] is fine)
    # A grown tensor, such as a vocabulary: the rows after the shared ones are new.
    rows = shared[0].spec.shape[:1]
    if rows != fine.spec.shape[:1]:
        segments = [*segments, _new_segment(fine.cut(*rows, *fine.spec.shape[:1]), config, split)]
    return SegmentedTensor(fine.spec, segments, split)


def _segment_shared(
    fine: StoredTensor, base: StoredTensor, config: EncodeConfig, is_whole: bool
) -> tuple[Sequence[Segment], int]:
    """Divide the rows that both checkpoints have; also return the split of the tensor."""
    if not is_whole and is_same(fine, base):  # Whole tensors have been compared by `segment_unchanged`.
        return [same_block(fine.spec.matrix()[0], BaseRows(base.name, 0))], 1
    return segment_delta(delta_of(fine, base), fine, base.name, config)


def segment_delta(
    delta: Tensor, fine: StoredTensor | None, base: str, config: EncodeConfig, is_rounded: bool = True
) -> tuple[Sequence[Segment], int]:
    """Divide a delta into segments; also return the split of the tensor.

    Parameters
    ----------
    delta : float32
        Of the tensor's shape.
    fine : StoredTensor or None
        The fine-tune's tensor; None if only the delta is known.
    base : str
        Name of the base tensor that the delta was taken from.
    config : EncodeConfig
        Holds the rule for which tensors are matrices.
    is_rounded : bool
        Whether the fine-tune was rounded to its dtype before the delta was taken: that noise is not to be coded.
    """
    if delta.ndim == 3 and delta.shape[0] > 1 and min(delta.shape[1:]) >= SMALLEST_MATRIX:
        # A stack of matrices: one segment each.
        parts = [fine and fine.cut(i, i + 1) for i in range(len(delta))]
        rows = [BaseRows(base, i * delta.shape[1]) for i in range(len(delta))]
        return [_matrix_segment(*part, 2, is_rounded) for part in zip(delta, parts, rows, strict=True)], 2
    if config.is_factorized(TensorSpec("F32", tuple(delta.shape)).matrix(), delta.ndim):
        return [_matrix_segment(delta.reshape(len(delta), -1), fine, BaseRows(base, 0), 1, is_rounded)], 1
    # All others element by element: each is a row, so that single unchanged elements are left out.
    split = max(1, delta.ndim)
    return [_element_segment(delta, fine, BaseRows(base, 0), split, is_rounded)], split


def segment_parts(
    delta: Tensor, fine: StoredTensor, parts: Parts, config: EncodeConfig
) -> tuple[Sequence[Segment], int]:
    """Divide a delta from rows of several base tensors into one segment for each part; also return the split.

    Parameters
    ----------
    delta : float32
        Of the tensor's shape, 2-d or 3-d.
    fine : StoredTensor
        The fine-tune's tensor.
    parts : Parts
        The rows of base tensors, of as many columns as the tensor's last dimension.
    config : EncodeConfig
        Holds the rule for which tensors are matrices.
    """
    columns, dimensions = delta.shape[-1], delta.ndim
    rows = delta.reshape(-1, columns)
    flat = StoredTensor(fine.name, TensorSpec(fine.spec.dtype, tuple(rows.shape)), fine.data)
    # All parts are of equal size, so that all are matrices or none is.
    is_matrix = config.is_factorized((parts[0].height, columns), 2)
    segments: list[Segment] = []
    first = 0
    for part in parts:
        end = first + part.height
        shape = (*[1] * (dimensions - 2), part.height, columns)
        own = StoredTensor(fine.name, TensorSpec(fine.spec.dtype, shape), flat.cut(first, end).data)
        if is_matrix:
            base = BaseRows(part.name, part.first)
            segments.append(_matrix_segment(rows[first:end], own, base, dimensions - 1, is_rounded=True))
        else:
            base = BaseRows(part.name, part.first * columns)
            segments.append(_element_segment(rows[first:end], own, base, dimensions))
        first = end
    return segments, dimensions - 1 if is_matrix else dimensions


def _matrix_segment(matrix: Tensor, fine: StoredTensor | None, base: BaseRows, split: int, is_rounded: bool) -> Segment:
    changed = _changed(matrix, fine, base, is_rounded)
    return same_block(len(matrix), base) if changed is None else MatrixSegment(changed, fine, split)


def _element_segment(
    delta: Tensor, fine: StoredTensor | None, base: BaseRows, split: int, is_rounded: bool = True
) -> Segment:
    changed = _changed(delta.reshape(-1, 1), fine, base, is_rounded)
    return same_block(delta.numel(), base) if changed is None else ElementSegment(changed, fine, split)


def _changed(matrix: Tensor, fine: StoredTensor | None, base: BaseRows, is_rounded: bool) -> DenseDelta | None:
    """Return the changed rows and columns of a delta, with its rounding noise where the fine-tune is known."""
    noise = rounding_noise(fine.tensor().reshape(matrix.shape), matrix) if fine and is_rounded else None
    return DenseDelta.of(matrix, base, noise)


def _new_segment(stored: StoredTensor, config: EncodeConfig, split: int = 1) -> Segment:
    if exact_reason(stored, config, is_new=True):
        return raw_block(stored, split)
    delta = DenseDelta.of(stored.tensor().to(torch.float32).reshape(stored.spec.matrix(split)), None)
    assert delta is not None
    return NewSegment(delta, stored, split)
