"""The preset `paper`: pieces -> blocks as DTS has them (arXiv 2512.01461); the inverse: see `best`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.encoding.config import EncodeConfig, Paper
from dtscodec.encoding.segments.changed import Moved
from dtscodec.encoding.segments.planned import Part, measure_lowrank, measure_values
from dtscodec.encoding.segments.segment import CodedBlock, Cut, Delta, New, raw_block
from dtscodec.format.blocks import Band, BandFactors, LowRank, Values
from dtscodec.format.streams import NO_NUMBERS
from dtscodec.linalg.svd import truncated_svd
from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.scalar import QuantizedVectors


@dataclass(frozen=True, slots=True)
class PaperPart:
    """A delta that is still to be coded. Its size is known already."""

    moved: Moved
    block: LowRank | Values

    @property
    def size(self) -> int:
        """Bytes of its streams, bitmaps before compression."""
        columns = self.moved.columns
        numbers = 4 * self.block.number_count(columns)
        return self.block.bitmap_bytes(columns) + numbers + sum(self.block.band_bytes(columns))

    def code(self) -> CodedBlock:
        """Code it; see `Planned`."""
        with np.errstate(over="ignore", invalid="ignore"):
            values, block = self.moved.values, self.block
            if isinstance(block, LowRank):
                band = quantize_factors(*truncated_svd(values, block.rank), block.per_vector)
                return measure_lowrank(block, self.moved, [band], _stored_in_full)
            return measure_values(block, self.moved, _quantize(values.reshape(1, -1), False), NO_NUMBERS)


def _stored_in_full(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers as F32 holds them."""
    return numbers


def plan_paper(cut: Cut, config: EncodeConfig) -> list[Part]:
    """The blocks of a tensor's pieces: matrices by SVD, the rest element by element, exact where that is smaller."""
    return [_plan(piece, config) if isinstance(piece, Delta | New) else piece for piece in cut.pieces]


def _plan(piece: Delta | New, config: EncodeConfig) -> Part:
    assert piece.stored is not None
    if isinstance(piece, Delta):
        part = PaperPart(piece.moved, _block(piece, config))
        if part.size < piece.stored.spec.nbytes:
            return part
    return raw_block(piece.stored, piece.split)


def _block(piece: Delta, config: EncodeConfig) -> LowRank | Values:
    moved = piece.moved
    if not piece.is_matrix:
        return Values(*moved.subset, bits=2)
    assert isinstance(config.preset, Paper)
    assert config.uniform_rank is not None
    rank = min(config.uniform_rank.of(moved.height, moved.columns), *moved.values.shape)
    return LowRank(*moved.subset, (Band(rank, 2),), config.preset.levels == "vector")


def quantize_factors(u: Tensor, s: Tensor, v: Tensor, per_vector: bool) -> BandFactors:
    """Quantize singular vectors into four groups each factor (DTS equations 5 to 7).

    Parameters
    ----------
    u : float32 [m, r]
    s : float32 [r]
    v : float32 [r, n]
    per_vector : bool
        A level table per singular vector, not per factor.
    """
    return BandFactors(_quantize(u.T, per_vector), _quantize(v, per_vector), s.numpy())


def _quantize(vectors: Tensor, per_vector: bool) -> QuantizedVectors:
    count, length = vectors.shape
    codes, levels = four_groups(vectors if per_vector else vectors.reshape(1, -1))
    return QuantizedVectors(codes.reshape(count, length).numpy(), levels.numpy(), 2)
