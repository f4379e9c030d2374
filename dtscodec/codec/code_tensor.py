"""One tensor of a fine-tune -> its entry and streams."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.codec.config import keep_exact
from dtscodec.codec.part import Part
from dtscodec.codec.pieces import CodedBlock, Cut
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Same
from dtscodec.format.index import TensorEntry
from dtscodec.format.streams import Streams

Planner: TypeAlias = Callable[[Cut], list[Part]]
"""Decides on a block for each piece of a tensor."""


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


def code_tensor(cut: Cut, planner: Planner) -> EncodedTensor:
    """Decide on blocks and code them.

    Raises
    ------
    EncodeError
        A matrix cannot be decomposed, or its delta is too large for float32.
    """
    parts, name, spec, split = planner(cut), cut.name, cut.spec, cut.split
    del cut  # The fine-tune's bytes are not needed any more, and what follows needs memory.
    try:
        blocks = [part if isinstance(part, CodedBlock) else part.code() for part in parts]
    except EncodeError as error:
        raise EncodeError(f"{name}: {error}; {keep_exact(name)}") from error
    entry = TensorEntry(name, spec, tuple(coded.block for coded in blocks), split)
    return EncodedTensor(entry, [coded.streams for coded in blocks], sum(map(_squares, blocks), Squares()))


def _squares(coded: CodedBlock) -> Squares:
    left_out = coded.delta_square if isinstance(coded.block, Same) else 0.0
    return Squares(coded.delta_square, coded.error_square, left_out)
