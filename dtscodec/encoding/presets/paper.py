"""The preset `paper`: segments -> blocks as DTS has them (arXiv 2512.01461); for the inverse see `best`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.encoding.config import EncodeConfig, Paper
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import EncodedBlock, low_rank_block, raw_block, values_block
from dtscodec.encoding.segments.segment import ElementSegment, MatrixSegment, NewSegment, Segment
from dtscodec.errors import assert_never
from dtscodec.format.blocks import Band, BandFactors, LowRank, Values
from dtscodec.format.streams import NO_NUMBERS
from dtscodec.linalg.svd import truncated_svd
from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.scalar import QuantizedVectors


@dataclass(frozen=True, slots=True)
class PaperPlan:
    """A delta and the block that it will become.

    Parameters
    ----------
    delta : DenseDelta
        The coded rows and columns.
    block : LowRank or Values
        The block; its rank is the config's.
    """

    delta: DenseDelta
    block: LowRank | Values

    @property
    def size(self) -> int:
        """Bytes of the block's streams, bitmaps before compression."""
        columns = self.delta.columns
        # Numbers are F32: four bytes each.
        numbers = 4 * self.block.number_count(columns)
        return self.block.bitmap_bytes(columns) + numbers + sum(self.block.band_bytes(columns))

    def encode(self) -> EncodedBlock:
        """Encode the delta, and measure the error.

        Raises
        ------
        EncodeError
            The matrix cannot be decomposed, or a number is beyond float32.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.delta.values
            match self.block:
                case LowRank():
                    # Truncate, then quantize each factor into four groups.
                    band = quantize_factors(*truncated_svd(values, self.block.rank), self.block.per_vector)
                    return low_rank_block(self.block, self.delta, [band], _stored_in_full)
                case Values():
                    return values_block(self.block, self.delta, _quantize(values.reshape(1, -1), False), NO_NUMBERS)
                case _:
                    assert_never(self.block)


def _stored_in_full(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return numbers as F32 holds them."""
    return numbers


def plan_paper(segment: Segment, config: EncodeConfig) -> PaperPlan | EncodedBlock:
    """Return how a segment is encoded: matrices by SVD, others element by element, exactly where that is smaller.

    Parameters
    ----------
    segment : Segment
        Rows of a tensor.
    config : EncodeConfig
        Holds the rank, and the preset's scope of levels.
    """
    match segment:
        case EncodedBlock():
            return segment
        case NewSegment():
            return raw_block(segment.stored, segment.split)
        case MatrixSegment() | ElementSegment():
            assert segment.stored is not None
            assert isinstance(segment.delta, DenseDelta)
            plan = PaperPlan(segment.delta, _block(segment, segment.delta, config))
            is_smaller = plan.size < segment.stored.spec.nbytes
            return plan if is_smaller else raw_block(segment.stored, segment.split)
        case _:
            assert_never(segment)


def _block(segment: MatrixSegment | ElementSegment, delta: DenseDelta, config: EncodeConfig) -> LowRank | Values:
    if isinstance(segment, ElementSegment):
        return Values(*delta.subset, bits=2)
    assert isinstance(config.preset, Paper)
    assert config.uniform_rank is not None
    # The rank follows from the whole matrix, but cannot exceed its changed rows or columns.
    rank = min(config.uniform_rank.of(delta.height, delta.columns), *delta.shape)
    return LowRank(*delta.subset, (Band(rank, 2),), config.preset.levels == "vector")


def quantize_factors(u: Tensor, s: Tensor, v: Tensor, per_vector: bool) -> BandFactors:
    """Quantize singular vectors into four groups each factor (DTS equations 5 to 7).

    Parameters
    ----------
    u : float32 [m, r]
        Left singular vectors.
    s : float32 [r]
        Singular values.
    v : float32 [r, n]
        Right singular vectors.
    per_vector : bool
        Whether each singular vector has a level table of its own, rather than each factor.
    """
    return BandFactors(_quantize(u.T, per_vector), _quantize(v, per_vector), s.numpy())


def _quantize(vectors: Tensor, per_vector: bool) -> QuantizedVectors:
    count, length = vectors.shape
    # One set of groups for a factor, or one for each vector.
    codes, levels = four_groups(vectors if per_vector else vectors.reshape(1, -1))
    return QuantizedVectors(codes.reshape(count, length).numpy(), levels.numpy(), 2)
