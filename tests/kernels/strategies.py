"""Random blocks with valid streams, of every shape, width and subset."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtscodec.format.blocks import Band, BandFactors, LowRank, Mask, Values, join_masks
from dtscodec.format.streams import Streams
from dtscodec.kernels.packed import PackedFactors, PackedValues, Store
from dtscodec.quantize.packing import PackedVectors, pack_codes
from dtscodec.quantize.widths import ALL_BITS, Bits, as_bits

Random = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A low-rank block, what it stores, and the columns of its tensor."""

    block: LowRank
    columns: int
    streams: Streams

    def packed(self, device: str = "cpu") -> PackedFactors:
        return Store([(self.block, self.columns)], torch.device(device)).add_factors(
            self.block.split(self.columns, self.streams)
        )

    def delta(self) -> NDArray[np.float64]:
        """The delta of the whole block in float64, by the plain way."""
        coded = self.block.split(self.columns, self.streams).delta(np.float64)
        return np.asarray(coded.place(self.block.height, self.columns), np.float64)

    def magnitude(self) -> NDArray[np.float64]:
        """The sum over components of |u s v|, which the bound of level B is made of."""
        coded = self.block.split(self.columns, self.streams).delta(np.float64)
        assert coded.right is not None
        whole = np.zeros((self.block.height, self.columns))
        whole[coded.where(*whole.shape)] = np.abs(coded.left) @ np.abs(coded.right)
        return whole


def low_rank(
    height: int,
    columns: int,
    bands: tuple[tuple[int, int], ...],
    rows: int | None = None,
    cols: int | None = None,
    *,
    per_vector: bool = False,
    is_dithered: bool = False,
    seed: int = 0,
) -> Case:
    """A low-rank block of random codes: bands of (rank, bits), so many rows and columns coded (None: all)."""
    random = np.random.default_rng(seed)
    made = tuple(Band(rank, as_bits(bits)) for rank, bits in bands)
    block = LowRank(height, None, rows, cols, made, per_vector, is_dithered)
    m, n = block.coded_shape(columns)
    parts = []
    for band in block.bands:
        u, v = (_vectors(random, band.rank, count, band.bits, per_vector) for count in (m, n))
        largest = 1e-3 if band.bits == 8 else 2.0  # Codes of 8 bits go up to 128, and float16 must hold the sum.
        scales = random.uniform(0.01 * largest, largest, 0 if band.bits == 16 else band.rank).astype(np.float32)
        parts.append(BandFactors(u, v, scales))
    numbers, packed = LowRank.join(1.0, parts)
    streams = Streams(join_masks(_mask(random, height, rows), _mask(random, columns, cols)), numbers, packed)
    block.split(columns, streams)  # Checks them.
    return Case(block, columns, streams)


def packed_values(
    height: int,
    columns: int,
    bits: Bits,
    *,
    rows: int | None = None,
    cols: int | None = None,
    per_row: bool = False,
    seed: int = 0,
) -> tuple[PackedValues, NDArray[np.float32]]:
    """A block of values, packed, and its delta by the plain way."""
    random = np.random.default_rng(seed)
    block = Values(height, None, rows, cols, bits, per_row)
    m, n = block.coded_shape(columns)
    codes = _vectors(random, 1, m * n, bits, False)
    scales = random.uniform(0.01, 2, (m if per_row else 1) if bits in (4, 8) else 0).astype(np.float32)
    numbers, bands = Values.join(codes, scales)
    streams = Streams(join_masks(_mask(random, height, rows), _mask(random, columns, cols)), numbers, bands)
    content = block.split(columns, streams)
    packed = Store([(block, columns)], torch.device("cpu")).add_values(content)
    return packed, content.delta().place(height, columns).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn, largest: int = 200) -> Case:
    """Low-rank blocks of at most `largest` rows and columns."""
    height, columns = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    band = st.tuples(st.integers(1, 20), st.sampled_from(ALL_BITS))
    return low_rank(
        height,
        columns,
        tuple(draw(st.lists(band, min_size=1, max_size=3))),
        rows=draw(st.none() | st.integers(1, height - 1)) if height > 1 else None,
        cols=draw(st.none() | st.integers(1, columns - 1)) if columns > 1 else None,
        per_vector=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def _vectors(random: Random, rank: int, count: int, bits: Bits, per_vector: bool) -> PackedVectors:
    if bits == 16:
        codes: NDArray[np.generic] = random.standard_normal((rank, count)).astype(np.float16)
    elif bits == 8:
        codes = random.integers(-128, 128, (rank, count)).astype(np.int8)
    else:
        codes = random.integers(0, 1 << bits, (rank, count)).astype(np.uint8)
    tables = (rank if per_vector else 1) if bits == 2 else 0
    levels = np.sort(random.standard_normal((tables, 4)), axis=1).astype(np.float32)
    return PackedVectors(pack_codes(codes, bits), levels, count, bits)


def _mask(random: Random, count: int, chosen: int | None) -> Mask | None:
    if chosen is None:
        return None
    mask = np.zeros(count, np.bool_)
    mask[random.choice(count, chosen, replace=False)] = True
    return mask
