"""Delta -> block and streams, and the error that makes. The inverse is `dtscodec.codec.dequantize`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dtscodec.codec.codebook import four_groups
from dtscodec.codec.config import EncodeConfig
from dtscodec.codec.dequantize import dequantize
from dtscodec.codec.factorize import one_thread, truncated_svd
from dtscodec.errors import EncodeError
from dtscodec.format.bits import pack_codes
from dtscodec.format.blocks import Band, BaseRows, Block, LowRank, Values
from dtscodec.format.parts import BandParts, Mask, Vectors, join_lowrank, join_masks, join_values
from dtscodec.format.streams import NO_NUMBERS, Streams


@dataclass(frozen=True, slots=True)
class CodedBlock:
    """A block and its streams, with the squared norms of the delta and of what coding loses of it."""

    block: Block
    streams: Streams
    delta_square: float = 0.0
    error_square: float = 0.0


@dataclass(frozen=True, slots=True)
class Moved:
    """The part of a delta that is not zero, and where it lies.

    Parameters
    ----------
    values : float32 [coded rows, coded columns]
    rows, cols : bool mask or None
        Rows and columns that hold an element that is not 0; None for all of them. The others are left out: four levels
        have no zero, and the noise of an SVD would give them one.
    height, columns : int
        Size of the delta.
    base : BaseRows
        The rows of the base that it was taken from.
    """

    values: Tensor
    rows: Mask | None
    cols: Mask | None
    height: int
    columns: int
    base: BaseRows

    @classmethod
    def of(cls, delta: Tensor, base: BaseRows) -> "Moved | None":
        """Find what moved in a delta, float32 [m, n]; None if nothing did."""
        rows, cols = _moved(delta, 1), _moved(delta, 0)
        if rows is not None and not rows.any():
            return None
        values = delta if rows is None else delta[torch.from_numpy(rows)]
        values = values if cols is None else values[:, torch.from_numpy(cols)]
        return cls(values, rows, cols, delta.shape[0], delta.shape[1], base)

    def elements(self) -> Values:
        """The block that codes it element by element: four groups, no SVD, as DTS does for vectors and convolutions."""
        return Values(*self._subset(), bits=2)

    def matrix(self, config: EncodeConfig) -> LowRank:
        """The block that codes it as DTS does for matrices: a truncated SVD, both factors in four groups."""
        rank = min(config.rank_of(self.height, self.columns), *self.values.shape)
        return LowRank(*self._subset(), (Band(rank, 2),), config.levels == "vector")

    def _subset(self) -> tuple[int, BaseRows, int | None, int | None]:
        return self.height, self.base, _count(self.rows), _count(self.cols)


@dataclass(frozen=True, slots=True)
class Planned:
    """A block that is still to be coded. Its size is known already."""

    moved: Moved
    block: LowRank | Values

    @property
    def size(self) -> int:
        """Bytes of its streams, bitmaps before compression."""
        columns = self.moved.columns
        numbers = 4 * self.block.number_count(columns)
        return self.block.bitmap_bytes(columns) + numbers + sum(self.block.band_bytes(columns))

    def code(self) -> CodedBlock:
        """Code it, and measure the error. The result is the same on any number of threads.

        Raises
        ------
        EncodeError
            The matrix cannot be decomposed, or its norm overflows.
        """
        with one_thread(), np.errstate(over="ignore", invalid="ignore"):
            streams = self._streams()
            decoded = dequantize(self.block, self.moved.columns, streams).dense()
            whole = torch.from_numpy(np.ascontiguousarray(decoded))
            if isinstance(self.block, LowRank):
                streams.numbers[0] = square(whole) ** 0.5
            if not np.isfinite(streams.numbers).all():
                raise EncodeError("expected a delta whose norm float32 can hold, got a larger one")
            values = self.moved.values
            return CodedBlock(self.block, streams, square(values), square(whole.sub_(values)))

    def _streams(self) -> Streams:
        """Numbers and codes; the norm of a low-rank block is left at 0."""
        values, block = self.moved.values, self.block
        if isinstance(block, LowRank):
            band = quantize_factors(*truncated_svd(values, block.rank), block.per_vector)
            numbers, bands = join_lowrank(0.0, [band])
        else:
            numbers, bands = join_values(_quantize(values.reshape(1, -1), False), NO_NUMBERS)
        return Streams(join_masks(self.moved.rows, self.moved.cols), numbers, bands)


def quantize_factors(u: Tensor, s: Tensor, v: Tensor, per_vector: bool) -> BandParts:
    """Quantize singular vectors into four groups each factor (DTS equations 5 to 7).

    Parameters
    ----------
    u : float32 [m, r]
    s : float32 [r]
    v : float32 [r, n]
    per_vector : bool
        A level table per singular vector, not per factor.
    """
    return BandParts(_quantize(u.T, per_vector), _quantize(v, per_vector), s.numpy())


def _quantize(vectors: Tensor, per_vector: bool) -> Vectors:
    count, length = vectors.shape
    codes, levels = four_groups(vectors if per_vector else vectors.reshape(1, -1))
    packed = pack_codes(codes.reshape(count, length).numpy(), 2)
    return Vectors(packed, levels.numpy(), length, 2)


def _moved(delta: Tensor, across: int) -> Mask | None:
    """Which rows (across = 1) or columns (across = 0) hold an element that is not 0; None for all of them."""
    mask: Mask = (delta != 0).any(dim=across).numpy()
    return None if mask.all() else mask


def _count(mask: Mask | None) -> int | None:
    return None if mask is None else int(mask.sum())


def square(tensor: Tensor) -> float:
    """Squared Frobenius norm, summed in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
