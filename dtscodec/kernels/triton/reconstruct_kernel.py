"""The Triton kernel of W = B + (u s) v^T: from packed codes to weights, without dense factors in memory."""

import triton
import triton.language as tl

from dtscodec.kernels.triton.codes import BAND, BANDS, RANK, U, V, components, positions, scales, tile
from dtscodec.quantize import dither

PERIOD = tl.constexpr(dither.PERIOD)


@triton.jit
def reconstruct_tile(
    base, out, table,
    m, n, base_row, base_column, out_row, out_column,
    WIDTHS: tl.constexpr, ROW_INDEX: tl.constexpr, COLUMN_INDEX: tl.constexpr, PRECISION: tl.constexpr,
    DITHERED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write one tile of the coded rows and columns of W, in float32, rounded once to the dtype of `out`.

    The table holds one share. Its numbers of rows and columns are passed as arguments, too: only then can the compiler
    know that they are multiples of 16, and vectorize loads and stores. The other integers are strides.
    """
    # The delta of the tile: the sum over all bands, width by width.
    first_row, first_column = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    delta = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for width in tl.static_range(len(WIDTHS)):
        for band in range(tl.load(table + BANDS + width), tl.load(table + BANDS + width + 1), BAND):
            delta = _add_band(
                delta, table + band, first_row, m, first_column, n,
                WIDTHS[width], PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
    # Add the base, and round once.
    i, j = first_row + tl.arange(0, BLOCK_M), first_column + tl.arange(0, BLOCK_N)
    inside = (i < m)[:, None] & (j < n)[None, :]
    row = positions(table, i, U, ROW_INDEX).to(tl.int64)[:, None]
    column = positions(table, j, V, COLUMN_INDEX).to(tl.int64)[None, :]
    summand = tl.load(base + row * base_row + column * base_column, mask=inside, other=0.0)
    total = summand.to(tl.float32) + delta
    result = _round_dithered(total, row, column) if DITHERED else total.to(out.dtype.element_ty)
    tl.store(out + row * out_row + column * out_column, result, mask=inside)


@triton.jit
def _round_dithered(total, row, column):
    """Round to bfloat16 by the thresholds of `dtscodec.quantize.dither`."""
    place = (row % PERIOD).to(tl.uint32) * 0x9E3779B1 + column.to(tl.uint32)
    place = (place ^ (place >> 16)) * 0x7FEB352D
    place = (place ^ (place >> 15)) * 0x846CA68B
    threshold = (place ^ (place >> 16)) >> 16
    bits = (total.to(tl.uint32, bitcast=True) + threshold) >> 16
    # The bits of a NaN may overflow.
    return tl.where(total == total, bits, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def _add_band(
    delta, band, first_row, m, first_column, n,
    BITS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add the product of a band's factors to a tile."""
    for begin in range(0, tl.load(band + RANK).to(tl.int32), BLOCK_K):
        k, live = components(band, begin, BLOCK_K)
        # The scales multiply u, which is the order of the spec: (u s) v^T.
        u = tile(band, k, first_row, m, BITS, U, BLOCK_M) * scales(band, k, live, BITS)[:, None]
        v = tile(band, k, first_column, n, BITS, V, BLOCK_N)
        delta = tl.dot(tl.trans(u), v, delta, input_precision=PRECISION)
    return delta
