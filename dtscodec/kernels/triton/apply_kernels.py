"""Triton kernels: y += ((x v) s) u^T and y += (rows of u s) v^T for rows of many tasks, straight from packed codes.

Each takes two steps: `project` or `pick` writes the product with one factor, `hidden`, float32 [rows, rank], and
`expand` multiplies it by the other factor. One launch covers all shares of a batch. Rows are grouped by share and
divided into tiles, each with a record: position of the share in the table, first row, number of rows. `rows` maps them
to rows of x and y.
"""

import triton
import triton.language as tl

from dtscodec.kernels.triton.codes import (
    BAND,
    BANDS,
    COMPONENT,
    COUNT,
    RANK,
    U,
    V,
    components,
    elements,
    positions,
    scales,
    tile,
)

TILE = tl.constexpr(3)


@triton.jit
def project(
    x, rows, table, tiles, hidden,
    x_row, x_column, hidden_part, hidden_row, part_columns,
    WIDTHS: tl.constexpr, COLUMN_INDEX: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write hidden [parts, rows, rank] = (x v) s for the rows of a tile, summed over one part of the columns.

    The grid is tiles x parts x blocks of components, so that even a batch of one row has work for many programs.
    """
    # Pointers to the rows of x and of hidden; the columns of this part.
    share, b, live_row = _rows_of_tile(table, tiles, BLOCK_B)
    x += tl.load(rows + b, mask=live_row, other=0)[:, None] * x_row
    hidden += tl.program_id(1).to(tl.int64) * hidden_part + b[:, None] * hidden_row
    first = tl.program_id(1) * part_columns
    end = tl.minimum(first + part_columns, tl.load(share + COUNT + V).to(tl.int32))
    # Bands are grouped by width, since each width is compiled into the kernel.
    for width in tl.static_range(len(WIDTHS)):
        for band in range(tl.load(share + BANDS + width), tl.load(share + BANDS + width + 1), BAND):
            _project_band(
                x, live_row, x_column, share, table + band, first, end, hidden,
                WIDTHS[width], COLUMN_INDEX, PRECISION, BLOCK_B, BLOCK_N, BLOCK_K,
            )  # fmt: skip


@triton.jit
def _project_band(
    x, live_row, x_column, share, band, first, end, hidden,
    BITS: tl.constexpr, COLUMN_INDEX: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # Programs along the third axis take turns at the components, BLOCK_K at a time.
    step = tl.num_programs(2) * BLOCK_K
    for begin in range(tl.program_id(2) * BLOCK_K, tl.load(band + RANK).to(tl.int32), step):
        # total [b, k] = sum over columns of x [b, n] v [n, k]; scales last, as they are per component.
        k, live = components(band, begin, BLOCK_K)
        total = tl.zeros((BLOCK_B, BLOCK_K), tl.float32)
        for first_column in range(first, end, BLOCK_N):
            j = first_column + tl.arange(0, BLOCK_N)
            column = positions(share, j, V, COLUMN_INDEX).to(tl.int64)[None, :]
            inside = live_row[:, None] & (j < end)[None, :]
            some = tl.load(x + column * x_column, mask=inside, other=0.0).to(tl.float32)
            v = tile(band, k, first_column, end, BITS, V, BLOCK_N)
            total = tl.dot(some, tl.trans(v), total, input_precision=PRECISION)
        _store_hidden(hidden, live_row, band, k, live, total * scales(band, k, live, BITS)[None, :])


@triton.jit
def pick(
    at, table, tiles, hidden, hidden_row,
    WIDTHS: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write hidden = u s for the rows of a tile: elements `at` of the vectors of u; zeros where that is negative."""
    share, b, live_row = _rows_of_tile(table, tiles, BLOCK_B)
    place = tl.load(at + b, mask=live_row, other=-1)
    hidden += b[:, None] * hidden_row
    for width in tl.static_range(len(WIDTHS)):
        for band in range(tl.load(share + BANDS + width), tl.load(share + BANDS + width + 1), BAND):
            _pick_band(place, live_row, table + band, hidden, WIDTHS[width], BLOCK_K)


@triton.jit
def _pick_band(place, live_row, band, hidden, BITS: tl.constexpr, BLOCK_K: tl.constexpr):
    coded = place >= 0
    for begin in range(0, tl.load(band + RANK).to(tl.int32), BLOCK_K):
        k, live = components(band, begin, BLOCK_K)
        # Rows that are not coded are masked: code 0 stands for them until they are set to zero.
        u = elements(band, k, tl.maximum(place, 0), coded, BITS, U) * scales(band, k, live, BITS)[None, :]
        _store_hidden(hidden, live_row, band, k, live, tl.where(coded[:, None], u, 0.0))


@triton.jit
def expand(
    hidden, rows, table, tiles, y,
    y_row, y_column, hidden_row,
    WIDTHS: tl.constexpr, SIDE: tl.constexpr, INDEX: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add hidden times the vectors of u (SIDE U) or v (V) to the rows of a tile and some columns of y; round once."""
    share, b, live_row = _rows_of_tile(table, tiles, BLOCK_B)
    hidden += b[:, None] * hidden_row
    first = tl.program_id(1) * BLOCK_N
    count = tl.load(share + COUNT + SIDE).to(tl.int32)
    # Sum hidden [b, k] times the vectors [k, n] over all bands.
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for width in tl.static_range(len(WIDTHS)):
        for band in range(tl.load(share + BANDS + width), tl.load(share + BANDS + width + 1), BAND):
            total = _expand_band(
                total, hidden, live_row, table + band, first, count,
                WIDTHS[width], SIDE, PRECISION, BLOCK_N, BLOCK_K,
            )  # fmt: skip
    # Add to the coded columns of y, rounded once.
    i = first + tl.arange(0, BLOCK_N)
    inside = live_row[:, None] & (i < count)[None, :]
    row = tl.load(rows + b, mask=live_row, other=0)[:, None]
    y += row * y_row + positions(share, i, SIDE, INDEX).to(tl.int64)[None, :] * y_column
    result = tl.load(y, mask=inside, other=0.0).to(tl.float32) + total
    tl.store(y, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _expand_band(
    total, hidden, live_row, band, first, count,
    BITS: tl.constexpr, SIDE: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    for begin in range(0, tl.load(band + RANK).to(tl.int32), BLOCK_K):
        k, live = components(band, begin, BLOCK_K)
        # A band's components begin at COMPONENT among the columns of hidden.
        spot = hidden + (tl.load(band + COMPONENT) + k)[None, :]
        left = tl.load(spot, mask=live_row[:, None] & live[None, :], other=0.0)
        total = tl.dot(left, tile(band, k, first, count, BITS, SIDE, BLOCK_N), total, input_precision=PRECISION)
    return total


@triton.jit
def _rows_of_tile(table, tiles, BLOCK_B: tl.constexpr):
    """Return the share of this program's tile, its rows in the order of the launch, and which of them exist."""
    record = tiles + tl.program_id(0) * TILE
    within = tl.arange(0, BLOCK_B)
    return table + tl.load(record), tl.load(record + 1) + within, within < tl.load(record + 2)


@triton.jit
def _store_hidden(hidden, live_row, band, k, live, values):
    """Write the components k of a band: [b, k]."""
    tl.store(hidden + (tl.load(band + COMPONENT) + k)[None, :], values, mask=live_row[:, None] & live[None, :])
