"""A delta's codes -> a block and its streams, with the squared norms of the delta and of its error.

The inverse is `delta` of the content that a block's streams are split into, such as
`dtscodec.format.blocks.LowRankContent.delta`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.factored_delta import FactoredDelta
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import BandFactors, BaseRows, Block, Coded, LowRank, Raw, Same, Values
from dtscodec.format.blocks.band import scaled_factors
from dtscodec.format.blocks.values import dequantize_values
from dtscodec.format.streams import Streams
from dtscodec.quantize.scalar import Rounding, Vectors

ChangedDelta: TypeAlias = DenseDelta | FactoredDelta
"""The changed rows and columns of a delta, by elements or by factors."""


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A block and its streams.

    Parameters
    ----------
    block : Block
        The block's entry in the index.
    streams : Streams
        Its bytes and numbers.
    delta_energy : float
        Squared norm of the delta, without rounding noise; 0 for rows without a counterpart in the base.
    error_energy : float
        Squared norm of the error, without rounding noise; 0 for rows without a counterpart in the base.
    """

    block: Block
    streams: Streams
    delta_energy: float = 0.0
    error_energy: float = 0.0


def raw_block(stored: StoredTensor, split: int = 1) -> EncodedBlock:
    """Return the exact bytes of some rows, compressed where that is shorter.

    Parameters
    ----------
    stored : StoredTensor
        The rows.
    split : int
        Number of leading dimensions that make up the rows of the tensor as a matrix.
    """
    return EncodedBlock(*Raw.join(stored.data, stored.spec.matrix(split)[0], stored.spec.dtype))


def same_block(height: int, base: BaseRows) -> EncodedBlock:
    """Return a block of rows that equal the base's.

    Parameters
    ----------
    height : int
        Number of rows.
    base : BaseRows
        The base rows.
    """
    return EncodedBlock(Same(height, base), Streams())


def low_rank_block(
    block: LowRank, delta: ChangedDelta, bands: Sequence[BandFactors], rounding: Rounding
) -> EncodedBlock:
    """Return the block of quantized components, with its norm and its error.

    Parameters
    ----------
    block : LowRank
        The block.
    delta : DenseDelta or FactoredDelta
        The coded rows and columns.
    bands : sequence of BandFactors
        Quantized components, with levels and scales as the pack will hold them.
    rounding : callable
        Rounds the norm in the same way.

    Raises
    ------
    EncodeError
        A number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # Levels and scales are those that will be stored, so this is the error of the decoded delta.
        norm, error = delta.compare_product(*scaled_factors(bands, np.float32))
        numbers, codes = LowRank.join(norm, bands)
        return _checked(block, delta, Streams(delta.bitmaps, rounding(numbers), codes), error)


def values_block(block: Values, delta: DenseDelta, codes: Vectors, scales: NDArray[np.float32]) -> EncodedBlock:
    """Return the block of quantized elements, with its error.

    Parameters
    ----------
    block : Values
        The block.
    delta : DenseDelta
        The coded rows and columns.
    codes : Vectors
        The quantized elements as one vector, with levels as the pack will hold them.
    scales : float32 [count]
        Scales as the pack will hold them.

    Raises
    ------
    EncodeError
        A number is beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # As the decoder computes it, from levels and scales as stored.
        decoded = torch.from_numpy(
            np.ascontiguousarray(dequantize_values(codes, scales, block.coded_shape(delta.columns)))
        )
        numbers, packed = Values.join(codes, scales)
        return _checked(block, delta, Streams(delta.bitmaps, numbers, packed), delta.error_energy(decoded))


def _checked(block: Coded, delta: ChangedDelta, streams: Streams, error: float) -> EncodedBlock:
    """Return the block with its squared norms, if its numbers are finite."""
    if not np.isfinite(streams.numbers).all():
        raise EncodeError("expected a delta whose norm float32 can hold, got a larger one")
    # New rows are no part of the delta, so they have no energy.
    return EncodedBlock(block, streams, 0.0 if delta.base is None else delta.energy, error)
