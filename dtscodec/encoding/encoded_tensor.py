"""One tensor of a fine-tune -> its entry and streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

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
    """Squared norms, without what rounding explains: of a delta, of what coding loses, and of what is left out."""

    delta: float = 0.0
    error: float = 0.0
    left_out: float = 0.0

    def __add__(self, other: "Squares") -> "Squares":
        return Squares(self.delta + other.delta, self.error + other.error, self.left_out + other.left_out)

    @property
    def relative_error(self) -> float:
        """Norm of what coding loses by the norm of the delta; 0 without a delta."""
        return (self.error / self.delta) ** 0.5 if self.delta else 0.0

    @property
    def left_out_share(self) -> float:
        """Share of the delta's squared norm in blocks that are left as the base has them."""
        return self.left_out / self.delta if self.delta else 0.0


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """A tensor's entry and streams, and what coding loses of it."""

    entry: TensorEntry
    streams: list[Streams]
    squares: Squares


def encode_segments(name: str, spec: TensorSpec, split: int, plans: Sequence[EncodingPlan]) -> EncodedTensor:
    """Encode a tensor by the plans of its segments.

    Parameters
    ----------
    name : str
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
        blocks = [plan if isinstance(plan, EncodedBlock) else plan.encode() for plan in plans]
    except EncodeError as error:
        raise EncodeError(f"{name}: {error.problem}", store_exactly(name)) from error
    entry = TensorEntry(name, spec, tuple(coded.block for coded in blocks), split)
    return EncodedTensor(entry, [coded.streams for coded in blocks], sum(map(_squares, blocks), Squares()))


def encode_same(name: str, spec: TensorSpec, base: str) -> EncodedTensor:
    """A tensor that is the base's of that name."""
    return _alone(name, spec, Same(spec.matrix()[0], BaseRows(base, 0)))


def encode_tie(name: str, spec: TensorSpec, to: str) -> EncodedTensor:
    """A tensor that equals another one of the fine-tune."""
    return _alone(name, spec, Tie(spec.matrix()[0], to))


def encode_exactly(stored: StoredTensor) -> EncodedTensor:
    """Encode a tensor as its exact bytes, compressed where that is shorter."""
    coded = raw_block(stored)
    return EncodedTensor(TensorEntry(stored.name, stored.spec, (coded.block,)), [coded.streams], Squares())


def _alone(name: str, spec: TensorSpec, block: Block) -> EncodedTensor:
    return EncodedTensor(TensorEntry(name, spec, (block,)), [Streams()], Squares())


def _squares(coded: EncodedBlock) -> Squares:
    left_out = coded.delta_energy if is_unchanged(coded.block) else 0.0
    return Squares(coded.delta_energy, coded.error_energy, left_out)
