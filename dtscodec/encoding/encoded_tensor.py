"""Encoding plans of a tensor's segments -> its index entry and streams.

The inverse is `dtscodec.decoding`, which reads an entry's blocks and adds their deltas to the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.checkpoints.names.expert_layouts import Parts
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.config import store_exactly
from dtscodec.encoding.presets.best import BestPlan
from dtscodec.encoding.presets.paper import PaperPlan
from dtscodec.encoding.segments.encoded_block import EncodedBlock, raw_block
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import BaseRows, Block, Same, Tie, is_unchanged
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.streams import Streams

EncodingPlan: TypeAlias = EncodedBlock | BestPlan | PaperPlan
"""How a segment will be encoded; an `EncodedBlock` has no codes to compute."""


@dataclass(frozen=True, slots=True)
class Squares:
    """Squared norms of a delta and of parts of it, without rounding noise. They add up over blocks and tensors.

    Parameters
    ----------
    delta : float
        Squared norm of the delta.
    error : float
        Squared norm of what encoding loses.
    left_out : float
        Squared norm of the delta in blocks that are stored as unchanged.
    """

    delta: float = 0.0
    error: float = 0.0
    left_out: float = 0.0

    def __add__(self, other: "Squares") -> "Squares":
        return Squares(self.delta + other.delta, self.error + other.error, self.left_out + other.left_out)

    @property
    def relative_error(self) -> float:
        """Norm of what encoding loses, divided by the norm of the delta; 0 without a delta."""
        return (self.error / self.delta) ** 0.5 if self.delta else 0.0

    @property
    def left_out_share(self) -> float:
        """Share of the delta's squared norm in blocks that are stored as unchanged."""
        return self.left_out / self.delta if self.delta else 0.0


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """A tensor as it is written to a pack.

    Parameters
    ----------
    entry : TensorEntry
        Its entry in the index.
    streams : list of Streams
        The streams of each of its blocks.
    squares : Squares
        Squared norms of its delta and of the error.
    """

    entry: TensorEntry
    streams: list[Streams]
    squares: Squares


def encode_segments(name: str, spec: TensorSpec, split: int, plans: Sequence[EncodingPlan]) -> EncodedTensor:
    """Encode a tensor by the plans of its segments.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        Dtype and shape.
    split : int
        Number of leading dimensions that make up the rows of the tensor as a matrix.
    plans : sequence of EncodingPlan
        One for each segment, in order.

    Raises
    ------
    EncodeError
        A matrix cannot be decomposed, or its delta is too large for float32.
    """
    try:
        # Codes are computed now; exact and unchanged blocks have none.
        blocks = [plan if isinstance(plan, EncodedBlock) else plan.encode() for plan in plans]
    except EncodeError as error:
        # Plans do not know the name of their tensor.
        raise EncodeError(f"{name}: {error.problem}", store_exactly(name)) from error
    entry = TensorEntry(name, spec, tuple(coded.block for coded in blocks), split)
    return EncodedTensor(entry, [coded.streams for coded in blocks], sum(map(_squares, blocks), Squares()))


def encode_same(name: str, spec: TensorSpec, base: str) -> EncodedTensor:
    """Return a tensor that equals a base tensor.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        Dtype and shape.
    base : str
        Name of the base tensor.
    """
    return _alone(name, spec, Same(spec.matrix()[0], BaseRows(base, 0)))


def encode_same_parts(name: str, spec: TensorSpec, parts: Parts) -> EncodedTensor:
    """Return a tensor that equals rows of base tensors.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        Dtype and shape.
    parts : Parts
        The rows, in the order of the tensor's.
    """
    blocks = tuple(Same(part.height, BaseRows(part.name, part.first)) for part in parts)
    entry = TensorEntry(name, spec, blocks, len(spec.shape) - 1)
    return EncodedTensor(entry, [Streams()] * len(blocks), Squares())


def encode_tie(name: str, spec: TensorSpec, to: str) -> EncodedTensor:
    """Return a tensor that is tied to another tensor of the fine-tune.

    Parameters
    ----------
    name : str
        Name of the tensor.
    spec : TensorSpec
        Dtype and shape.
    to : str
        Name of the other tensor.
    """
    return _alone(name, spec, Tie(spec.matrix()[0], to))


def encode_exactly(stored: StoredTensor) -> EncodedTensor:
    """Return a tensor as its exact bytes, compressed where that is shorter.

    Parameters
    ----------
    stored : StoredTensor
        The tensor.
    """
    coded = raw_block(stored)
    return EncodedTensor(TensorEntry(stored.name, stored.spec, (coded.block,)), [coded.streams], Squares())


def _alone(name: str, spec: TensorSpec, block: Block) -> EncodedTensor:
    return EncodedTensor(TensorEntry(name, spec, (block,)), [Streams()], Squares())


def _squares(coded: EncodedBlock) -> Squares:
    left_out = coded.delta_energy if is_unchanged(coded.block) else 0.0
    return Squares(coded.delta_energy, coded.error_energy, left_out)
