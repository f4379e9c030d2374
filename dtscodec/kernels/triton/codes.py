"""Packed codes -> values inside Triton kernels (spec section 5.3), and the table of their positions.

A table is int64, made by `dtscodec.kernels.triton.table`. It holds one record per share:

    coded rows m, coded columns n, address of the index of rows, of columns (0: all), and for each width
    of the launch the position of its first band; then the position after the last band

and one record per band, with the fields of the constants below. Positions are offsets in the table. Bands of one share
and width are contiguous.
"""

import triton
import triton.language as tl

# Fields of a share.
COUNT = tl.constexpr(0)  # m, then n.
INDEX = tl.constexpr(2)  # Addresses for rows, then for columns.
BANDS = tl.constexpr(4)

# Fields of a band, and their number.
RANK = tl.constexpr(0)
COMPONENT = tl.constexpr(1)  # Its first component among those of the share.
STEP = tl.constexpr(2)  # Words from one component to the next.
TABLE_STEP = tl.constexpr(3)  # Levels from one level table to the next; 0 if there is one.
SCALES = tl.constexpr(4)
CODES = tl.constexpr(5)  # Addresses for u, then for v.
LEVELS = tl.constexpr(7)  # Likewise.
BAND = tl.constexpr(9)

U = tl.constexpr(0)
V = tl.constexpr(1)


@triton.jit
def components(band, begin, BLOCK_K: tl.constexpr):
    """Return some components of a band, the last one repeated beyond the end, and which of them are valid."""
    rank = tl.load(band + RANK).to(tl.int32)
    k = begin + tl.arange(0, BLOCK_K)
    return tl.minimum(k, rank - 1), k < rank


@triton.jit
def scales(band, k, live, BITS: tl.constexpr):
    """Return the scales of components: float32 [k]; zero for invalid ones, which must not contribute."""
    if BITS == 16:
        return live.to(tl.float32)
    else:
        return tl.load(_address(band + SCALES, tl.float32) + k, mask=live, other=0.0)


@triton.jit
def tile(band, k, first, count, BITS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Return the values of elements from `first` on, a multiple of BLOCK, of vectors of u or v: float32 [k, BLOCK].

    It reads words, not bytes: vectors begin and end at multiples of 16 bytes, and a word holds up to 16 elements.
    Values beyond the last element are finite, but arbitrary.
    """
    # A word of 32 bits holds PER_WORD codes, the first in its lowest bits.
    PER_WORD: tl.constexpr = 32 // BITS
    word = first // PER_WORD + tl.arange(0, BLOCK // PER_WORD)
    vectors = _address(band + CODES + SIDE, tl.int32) + k[:, None] * tl.load(band + STEP)
    packed = tl.load(vectors + word[None, :], mask=(word * PER_WORD < count)[None, :], other=0)
    codes = packed[:, :, None] >> (tl.arange(0, PER_WORD) * BITS)[None, None, :]
    return tl.reshape(_values(band, k[:, None, None], codes, BITS, SIDE), (k.shape[0], BLOCK))


@triton.jit
def elements(band, k, at, live, BITS: tl.constexpr, SIDE: tl.constexpr):
    """Return the values of elements at arbitrary positions of vectors of u or v: int64 [b] -> float32 [b, k]."""
    PER_WORD: tl.constexpr = 32 // BITS
    vectors = _address(band + CODES + SIDE, tl.int32) + k[None, :] * tl.load(band + STEP)
    packed = tl.load(vectors + (at // PER_WORD)[:, None], mask=live[:, None], other=0)
    codes = packed >> (at % PER_WORD * BITS).to(tl.int32)[:, None]
    return _values(band, k[None, :], codes, BITS, SIDE)


@triton.jit
def positions(share, i, SIDE: tl.constexpr, INDEX_TYPE: tl.constexpr):
    """Return the positions of coded rows (U) or columns (V) in their block; INDEX_TYPE is None without any subset.

    Without a subset these are the integers passed in, so that the compiler can infer that they are contiguous.
    """
    if INDEX_TYPE is None:
        return i
    else:
        # An address of 0 stands for all rows or columns.
        address = tl.load(share + INDEX + SIDE)
        inside = (i < tl.load(share + COUNT + SIDE)) & (address != 0)
        chosen = tl.load(address.to(tl.pointer_type(INDEX_TYPE)) + i, mask=inside, other=0)
        return tl.where(address != 0, chosen.to(tl.int32), i)


@triton.jit
def _values(band, k, codes, BITS: tl.constexpr, SIDE: tl.constexpr):
    """Return the values of codes, each in the low bits of its word; k broadcasts to them."""
    if BITS == 16:
        # The low 16 bits, reinterpreted as half precision.
        return codes.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    elif BITS == 8:
        return codes.to(tl.int8).to(tl.float32)
    else:
        level = k * tl.load(band + TABLE_STEP).to(tl.int32) + (codes & ((1 << BITS) - 1))
        return tl.load(_address(band + LEVELS + SIDE, tl.float32) + level)


@triton.jit
def _address(field, TYPE: tl.constexpr):
    """Return a field of the table as a pointer."""
    return tl.load(field).to(tl.pointer_type(TYPE))
