"""What a preset makes of a piece: a block that is decided on, still to be coded."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.segment import CodedBlock
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import BandFactors, Coded, LowRank, Values
from dtscodec.format.blocks.band import scaled_factors
from dtscodec.format.blocks.values import scaled_values
from dtscodec.format.streams import Streams
from dtscodec.linalg.chunks import squared_norm
from dtscodec.quantize.scalar import Rounding, Vectors


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


def measure_lowrank(block: LowRank, moved: Moved, bands: Sequence[BandFactors], rounded: Rounding) -> CodedBlock:
    """Compute the norm and the error of quantized components, and pack them.

    Parameters
    ----------
    block : LowRank
    moved : Moved
        What the components stand for.
    bands : sequence of BandFactors
        Levels and scales as the pack will hold them.
    rounded : callable
        Rounds the norm likewise.

    Raises
    ------
    EncodeError
        A number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        left, right = scaled_factors(bands, np.float32)
        decoded = torch.from_numpy(np.ascontiguousarray(left.T @ right))
        numbers, codes = LowRank.join(squared_norm(decoded) ** 0.5, bands)
        return _measure(block, moved, decoded, Streams(moved.bitmaps, rounded(numbers), codes))


def measure_values(block: Values, moved: Moved, codes: Vectors, scales: NDArray[np.float32]) -> CodedBlock:
    """Compute the error of quantized elements, and pack them.

    Parameters
    ----------
    block : Values
    moved : Moved
        What the elements stand for.
    codes : Vectors
        One vector, with levels as the pack will hold them.
    scales : float32 [count]
        Likewise.

    Raises
    ------
    EncodeError
        A number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        decoded = torch.from_numpy(np.ascontiguousarray(scaled_values(codes, scales, block.coded_shape(moved.columns))))
        numbers, bands = Values.join(codes, scales)
        return _measure(block, moved, decoded, Streams(moved.bitmaps, numbers, bands))


def _measure(block: Coded, moved: Moved, decoded: Tensor, streams: Streams) -> CodedBlock:
    """The block with its error; `decoded` is overwritten."""
    if not np.isfinite(streams.numbers).all():
        raise EncodeError("expected a delta whose norm float32 can hold, got a larger one")
    if moved.base is None:
        return CodedBlock(block, streams)
    error = squared_norm(decoded.sub_(moved.values))
    return CodedBlock(block, streams, moved.signal_square, max(0.0, error - moved.noise_square))
