"""What a preset makes of a piece: a block that is decided on, still to be coded."""

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.segment import CodedBlock
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Coded
from dtscodec.format.streams import Streams
from dtscodec.linalg.norms import squared_norm


@runtime_checkable
class Planned(Protocol):
    """A block that is decided on and still to be coded."""

    def code(self) -> CodedBlock:
        """Code it, and measure the error.

        Raises
        ------
        EncodeError
            The matrix cannot be decomposed, or its norm overflows.
        """


Part: TypeAlias = CodedBlock | Planned
"""A block that is ready, or one that is still to be coded."""


def measured(block: Coded, moved: Moved, streams: Streams) -> CodedBlock:
    """Decode what was coded: enter the norm of a low-rank block, and keep the error.

    Parameters
    ----------
    block : LowRank or Values
    moved : Moved
        What it was coded from.
    streams : Streams
        Its own; the norm of a low-rank block is entered here.

    Raises
    ------
    EncodeError
        A number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        decoded = block.split(moved.columns, streams).delta().dense()
        whole = torch.from_numpy(np.ascontiguousarray(decoded))
        if block.has_norm:
            streams.numbers[0] = squared_norm(whole) ** 0.5
        if not np.isfinite(streams.numbers).all():
            raise EncodeError("expected a delta whose norm float32 can hold, got a larger one")
        if moved.base is None:
            return CodedBlock(block, streams)
        noise = moved.noise_square
        error = squared_norm(whole.sub_(moved.values))
        return CodedBlock(block, streams, moved.signal_square, max(0.0, error - noise))
