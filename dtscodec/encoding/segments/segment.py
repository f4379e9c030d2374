"""Checkpoint -> pieces: what of a tensor is the base's, what is a delta, what is new, what must stay exact.

`cut_tensor` looks at both checkpoints' bytes and keeps the delta only, so that these bytes are free before the
memory-hungry part begins. How pieces are coded is the presets' business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.checkpoints.stored_tensor import StoredTensor, is_finite
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.delta import delta_of, is_same, shared_part
from dtscodec.encoding.segments.changed import Moved
from dtscodec.format.blocks import BaseRows, Block, Raw, Same
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.streams import Streams
from dtscodec.linalg.rounding_noise import rounding_noise

SMALLEST_MATRIX = 32
"""A 3-d tensor is a stack of matrices (fused experts) if these are several, and at least so high and wide."""


@dataclass(frozen=True, slots=True)
class CodedBlock:
    """A block and its streams, with the squared norms of the delta and of what coding loses of it.

    Both without what rounding of the fine-tune explains, and 0 for what has no counterpart in the base.
    """

    block: Block
    streams: Streams
    delta_square: float = 0.0
    error_square: float = 0.0


@dataclass(frozen=True, slots=True)
class Delta:
    """Rows that both checkpoints have, and that moved.

    Parameters
    ----------
    moved : Moved
        As a matrix, or, if it is to be coded element by element, as a column of them.
    stored : StoredTensor or None
        The same rows as the fine-tune has them; None if only the delta is known.
    split : int
        How they are seen as a matrix.
    is_matrix : bool
    """

    moved: Moved
    stored: StoredTensor | None
    split: int
    is_matrix: bool


@dataclass(frozen=True, slots=True)
class New:
    """Rows without a counterpart in the base, of a dtype that can be coded: a delta from zero.

    Parameters
    ----------
    moved : Moved
    stored : StoredTensor
        The same rows as the fine-tune has them.
    split : int
        How they are seen as a matrix.
    """

    moved: Moved
    stored: StoredTensor
    split: int


Piece: TypeAlias = CodedBlock | Delta | New


@dataclass(frozen=True, slots=True)
class Cut:
    """A tensor and its pieces, in the order of its rows."""

    name: str
    spec: TensorSpec
    pieces: Sequence[Piece]
    split: int = 1

    @property
    def is_layer(self) -> bool:
        """Whether a part of it is the delta of one matrix, which a layer's inputs may see."""
        return self.split == 1 and any(isinstance(piece, Delta) and piece.is_matrix for piece in self.pieces)

    def seen_by(self, metric: Metric) -> "Cut":
        """The same as the inputs of its layer see it.

        Raises
        ------
        EncodeError
            The metric is that of another layer.
        """
        return replace(self, pieces=[_seen(piece, metric) for piece in self.pieces]) if self.is_layer else self


def cut_same(fine: StoredTensor, base: StoredTensor | None) -> Cut | None:
    """A tensor that did not change; None if it did."""
    if base is None or not is_same(fine, base):
        return None
    return Cut(fine.name, fine.spec, [_same(fine.spec, base.name)])


def cut_tensor(fine: StoredTensor, base: StoredTensor | None, config: EncodeConfig) -> Cut:
    """Cut a tensor that changed, or is new.

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
    if config.stores_exactly(fine.name):
        return Cut(fine.name, fine.spec, [raw_block(fine)])
    shared = None if base is None else shared_part(fine, base)
    if shared is None:
        return Cut(fine.name, fine.spec, [_new(fine, config)])
    pieces, split = _cut_shared(*shared, config, is_whole=shared[0] is fine)
    rows = shared[0].spec.shape[:1]
    if rows != fine.spec.shape[:1]:
        pieces = [*pieces, _new(fine.cut(*rows, *fine.spec.shape[:1]), config, split)]
    return Cut(fine.name, fine.spec, pieces, split)


def _cut_shared(
    fine: StoredTensor, base: StoredTensor, config: EncodeConfig, is_whole: bool
) -> tuple[Sequence[Piece], int]:
    """Cut the rows that both checkpoints have; with the split that the pieces are cut by."""
    if not is_whole and is_same(fine, base):  # A whole tensor that is the same has been cut already.
        return [_same(fine.spec, base.name)], 1
    return cut_delta(delta_of(fine, base), fine, base.name, config)


def cut_delta(
    delta: Tensor, fine: StoredTensor | None, base: str, config: EncodeConfig, is_rounded: bool = True
) -> tuple[Sequence[Piece], int]:
    """Cut a delta; with the split that the pieces are cut by.

    Parameters
    ----------
    delta : float32
        Of the tensor's shape.
    fine : StoredTensor or None
        What it leads to, if that is known.
    base : str
        The base's tensor that it was taken from.
    config : EncodeConfig
    is_rounded : bool
        Whether what it leads to was rounded before it was taken: that noise is not to be coded.
    """
    if delta.ndim == 3 and delta.shape[0] > 1 and min(delta.shape[1:]) >= SMALLEST_MATRIX:
        parts = [fine and fine.cut(i, i + 1) for i in range(len(delta))]
        rows = [BaseRows(base, i * delta.shape[1]) for i in range(len(delta))]
        return [_delta(*part, 2, is_rounded) for part in zip(delta, parts, rows, strict=True)], 2
    if config.is_factorized(TensorSpec("F32", tuple(delta.shape)).matrix(), delta.ndim):
        return [_delta(delta.reshape(len(delta), -1), fine, BaseRows(base, 0), 1, is_rounded)], 1
    # Each element is a row, so that every single one that did not move is left out.
    split = max(1, delta.ndim)
    return [_delta(delta.reshape(-1, 1), fine, BaseRows(base, 0), split, is_rounded, is_matrix=False)], split


def _delta(
    delta: Tensor, fine: StoredTensor | None, base: BaseRows, split: int, is_rounded: bool, is_matrix: bool = True
) -> Piece:
    noise = rounding_noise(fine.tensor().reshape(delta.shape), delta) if fine and is_rounded else None
    moved = Moved.of(delta, base, noise)
    return Delta(moved, fine, split, is_matrix) if moved is not None else CodedBlock(Same(len(delta), base), Streams())


def _seen(piece: Piece, metric: Metric) -> Piece:
    if not isinstance(piece, Delta) or not piece.is_matrix:
        return piece
    return replace(piece, moved=piece.moved.seen_by(metric))


def _new(stored: StoredTensor, config: EncodeConfig, split: int = 1) -> Piece:
    if not config.quantizes_new_tensors or stored.spec.dtype not in CODED_DTYPES:
        return raw_block(stored, split)
    values = stored.tensor().to(torch.float32).reshape(stored.spec.matrix(split))
    moved = Moved.of(values, None) if is_finite(values) else None
    return raw_block(stored, split) if moved is None else New(moved, stored, split)


def _same(spec: TensorSpec, base: str) -> CodedBlock:
    return CodedBlock(Same(spec.matrix()[0], BaseRows(base, 0)), Streams())


def raw_block(stored: StoredTensor, split: int = 1) -> CodedBlock:
    """The exact bytes of some rows."""
    return CodedBlock(*Raw.join(stored.data, stored.spec.matrix(split)[0], stored.spec.dtype))
