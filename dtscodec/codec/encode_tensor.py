"""One tensor of a fine-tune -> its entry and streams: which kind of block, for which rows.

`plan_tensor` looks at both checkpoints' bytes and keeps the delta only, so that these bytes are free before the
memory-hungry part, `code_plan`, begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from dtscodec.codec.config import EncodeConfig, keep_exact
from dtscodec.codec.delta import StoredTensor, delta_of, is_same, shared_part
from dtscodec.codec.quantize import CodedBlock, Moved, Planned
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import BaseRows, Raw, Same, Tie
from dtscodec.format.dtypes import TensorSpec, plane_count
from dtscodec.format.index import TensorEntry
from dtscodec.format.planes import split_planes
from dtscodec.format.streams import Streams

SMALLEST_MATRIX = 32
"""A 3-d tensor is a stack of matrices (fused experts) if these are several, and at least so high and wide."""

Part: TypeAlias = CodedBlock | Planned
"""A block that is ready, or one that is still to be coded."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a tensor is going to be stored."""

    name: str
    spec: TensorSpec
    parts: Sequence[Part]
    split: int = 1


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """A tensor's entry and streams, with the squared norms of its coded delta and of what coding loses of it."""

    entry: TensorEntry
    streams: list[Streams]
    delta_square: float
    error_square: float


def plan_same(fine: StoredTensor, base: StoredTensor | None) -> Plan | None:
    """The plan of a tensor that did not change; None if it did."""
    if base is None or not is_same(fine, base):
        return None
    return Plan(fine.name, fine.spec, [_same(fine.spec, base.name)])


def plan_tensor(fine: StoredTensor, base: StoredTensor | None, config: EncodeConfig) -> Plan:
    """Decide how a tensor that changed is stored.

    Parameters
    ----------
    fine : StoredTensor
        The fine-tune's tensor.
    base : StoredTensor or None
        Its counterpart in the base, if there is one.
    config : EncodeConfig

    Raises
    ------
    EncodeError
        A tensor that is to be coded holds NaN or infinity.
    """
    shared = None if base is None or config.keeps_exact(fine.name) else shared_part(fine, base)
    parts, split = _plan_shared(*shared, config, is_whole=shared[0] is fine) if shared else (None, 1)
    if parts is None or shared is None:
        return Plan(fine.name, fine.spec, [_raw(fine)])
    rows = shared[0].spec.shape[:1]
    if rows != fine.spec.shape[:1]:
        parts = [*parts, _raw(fine.cut(*rows, *fine.spec.shape[:1]), split)]
    return Plan(fine.name, fine.spec, parts, split)


def code_plan(plan: Plan) -> EncodedTensor:
    """Do what a plan says.

    Raises
    ------
    EncodeError
        A matrix cannot be decomposed, or its delta is too large for float32.
    """
    try:
        blocks = [part.code() if isinstance(part, Planned) else part for part in plan.parts]
    except EncodeError as error:
        raise EncodeError(f"{plan.name}: {error}; {keep_exact(plan.name)}") from error
    entry = TensorEntry(plan.name, plan.spec, tuple(block.block for block in blocks), plan.split)
    squares = sum(block.delta_square for block in blocks), sum(block.error_square for block in blocks)
    return EncodedTensor(entry, [block.streams for block in blocks], *squares)


def tie_tensor(name: str, spec: TensorSpec, to: str) -> EncodedTensor:
    """Encode a tensor that equals another one of the fine-tune."""
    return EncodedTensor(TensorEntry(name, spec, (Tie(spec.matrix()[0], to),)), [Streams()], 0.0, 0.0)


def _plan_shared(
    fine: StoredTensor, base: StoredTensor, config: EncodeConfig, is_whole: bool
) -> tuple[Sequence[Part] | None, int]:
    """Plan the rows that both checkpoints have: parts and split; no parts if they had better be exact."""
    if not is_whole and is_same(fine, base):  # A whole tensor that is the same has its plan already.
        return [_same(fine.spec, base.name)], 1
    delta = delta_of(fine, base)
    split, parts = _plan_delta(delta, base.name, config)
    planned = [part for part in parts if isinstance(part, Planned)]
    # Nothing planned: the bits differ, but not the values, as 0 and -0 do.
    if not planned or sum(part.size for part in planned) >= fine.spec.nbytes:
        return None, 1
    return parts, split


def _plan_delta(delta: Tensor, base: str, config: EncodeConfig) -> tuple[int, list[Part]]:
    """Choose split and blocks by shape, as DTS does: matrices by SVD, anything else element by element."""
    if delta.ndim == 3 and delta.shape[0] > 1 and min(delta.shape[1:]) >= SMALLEST_MATRIX:
        height = delta.shape[1]
        return 2, [_plan_matrix(matrix, BaseRows(base, i * height), config) for i, matrix in enumerate(delta)]
    if delta.ndim == 2:
        return 1, [_plan_matrix(delta, BaseRows(base, 0), config)]
    # Each element is a row, so that every single one that did not move is left out.
    moved = Moved.of(delta.reshape(-1, 1), BaseRows(base, 0))
    return max(1, delta.ndim), [
        Planned(moved, moved.elements()) if moved else _unmoved(delta.numel(), BaseRows(base, 0))
    ]


def _plan_matrix(delta: Tensor, base: BaseRows, config: EncodeConfig) -> Part:
    moved = Moved.of(delta, base)
    return Planned(moved, moved.matrix(config)) if moved else _unmoved(len(delta), base)


def _unmoved(height: int, base: BaseRows) -> CodedBlock:
    return CodedBlock(Same(height, base), Streams())


def _same(spec: TensorSpec, base: str) -> CodedBlock:
    return _unmoved(spec.matrix()[0], BaseRows(base, 0))


def _raw(stored: StoredTensor, split: int = 1) -> CodedBlock:
    raw, planes = split_planes(stored.data, plane_count(stored.spec.dtype))
    return CodedBlock(Raw(stored.spec.matrix(split)[0], planes), Streams(raw=raw))
