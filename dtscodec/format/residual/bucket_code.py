"""Small integers <-> bytes for a zstd frame, close to their entropy (spec section 15.4).

zstd codes bytes by Huffman's code, which needs at least one bit for each. So integers that are mostly 0 share a byte,
up to four of them. Of integers that are large, the low bits are nearly random: they are stored apart, as they are.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dtscodec.format.residual.integers import Integers, Octets

SHARED: Final = (1, 2, 4)
"""Integers that share a byte, with 8, 4 or 2 bits each."""
LOW_STEP: Final = 4
"""Low bits are stored in multiples of this."""
_LARGEST_MEANS: Final = {4: 0.55, 2: 5.0, 1: 64.0}
"""Largest mean distance for which so many integers share a byte; see `benchmarks.exact`. Beyond the last, low bits are
stored apart until the mean of the rest is below it."""


@dataclass(frozen=True, slots=True)
class BucketCode:
    """How the distances of one context are stored.

    Parameters
    ----------
    low : int
        Low bits that are stored apart, a multiple of 4 below 64.
    shared : {1, 2, 4}
        How many of the remaining integers share a byte.

    Raises
    ------
    ValueError
        A value is out of range.
    """

    low: int
    shared: int

    def __post_init__(self) -> None:
        if not (0 <= self.low < 64 and self.low % LOW_STEP == 0 and self.shared in SHARED):
            raise ValueError(f"expected low bits in fours below 64, and 1, 2 or 4 a byte, got {self}")

    @property
    def bits(self) -> int:
        """Bits of an integer in a shared byte."""
        return 8 // self.shared

    @property
    def escape(self) -> int:
        """The code of integers that are at least this."""
        return (1 << self.bits) - 1

    def to_byte(self) -> int:
        """Return the code as one byte; the inverse of `from_byte`."""
        return self.low // LOW_STEP << 2 | SHARED.index(self.shared)

    @classmethod
    def from_byte(cls, value: int) -> "BucketCode":
        """Read the code; the inverse of `to_byte`."""
        if value & 3 >= len(SHARED):
            raise ValueError(f"expected a code of 1, 2 or 4 a byte, got {value}")
        return cls((value >> 2) * LOW_STEP, SHARED[value & 3])

    def low_bytes(self, count: int) -> int:
        """Return the bytes that the low bits of `count` integers take."""
        return self.low // 8 * count + (-(-count // 2) if self.low % 8 else 0)

    def shared_bytes(self, count: int) -> int:
        """Return the bytes that the remaining integers take, without escapes."""
        return -(-count // self.shared)


def _table(shared: int) -> Integers:
    """Return the symbols of each byte, one per byte of an integer: unsigned integers [256]."""
    bits = 8 // shared
    values = np.arange(256, dtype=f"<u{shared}")
    table = np.zeros_like(values)
    for place in range(shared):
        table |= (values >> place * bits & (1 << bits) - 1) << 8 * place
    return table


_SYMBOLS: Final = {shared: _table(shared) for shared in SHARED}


def choose_code(distances: Integers) -> BucketCode:
    """Return a code that suits distances, of which there is at least one."""
    mean = float(distances.mean(dtype=np.float64))
    for shared, largest in _LARGEST_MEANS.items():
        if mean < largest:
            return BucketCode(0, shared)
    low = LOW_STEP * math.ceil(math.log2(mean / _LARGEST_MEANS[1]) / LOW_STEP)
    return BucketCode(min(low, 60), 1)


def split_bucket(distances: Integers, code: BucketCode) -> tuple[bytes, bytes, Integers]:
    """Return the bytes of low bits, shared bytes, and what escapes exceed the largest code by; see `join_bucket`.

    Parameters
    ----------
    distances : unsigned integers [n]
        Distances of one context.
    code : BucketCode
        How they are stored.
    """
    high = distances >> code.low if code.low else distances
    escaped = high >= code.escape
    symbols = np.minimum(high, code.escape).astype(np.uint8)
    return (
        _split_low(distances, code.low),
        _share(symbols, code.bits),
        high[escaped] - high.dtype.type(code.escape),
    )


def read_symbols(data: Octets, count: int, code: BucketCode) -> Octets:
    """Return the codes of `count` integers from shared bytes: uint8 [count], `code.escape` for larger ones.

    Raises
    ------
    ValueError
        Padding is not zero.
    """
    if code.shared == 1:
        return data
    symbols: Octets = _SYMBOLS[code.shared][data].view(np.uint8)
    if symbols[count:].any():
        raise ValueError("expected padding of zero in shared bytes")
    return symbols[:count]


def join_bucket(low: Octets, symbols: Octets, excess: Integers, code: BucketCode) -> Integers:
    """Return distances; the inverse of `split_bucket`.

    Parameters
    ----------
    low : uint8
        Bytes of low bits.
    symbols : uint8 [n]
        As `read_symbols` returns them.
    excess : unsigned integers
        What escapes exceed the largest code by, as many as there are.
    code : BucketCode
        How the distances are stored.

    Raises
    ------
    ValueError
        A distance is beyond its dtype.
    """
    dtype = excess.dtype
    distances = symbols.astype(dtype)
    if len(excess):
        escaped = symbols == code.escape
        distances[escaped] += excess
        if (distances[escaped] < excess).any():
            raise ValueError(f"expected distances of {8 * dtype.itemsize} bits, got more")
    if not code.low:
        return distances
    if code.low >= 8 * dtype.itemsize or (distances >> (8 * dtype.itemsize - code.low)).any():
        raise ValueError(f"expected distances of {8 * dtype.itemsize} bits, got more")
    joined: Integers = distances << dtype.type(code.low) | _join_low(low, len(symbols), code.low, dtype)
    return joined


def _share(symbols: Octets, bits: int) -> bytes:
    """Put 8 / bits symbols into each byte, the first lowest; zeros fill the last byte."""
    shared = 8 // bits
    if shared == 1:
        return symbols.tobytes()
    padded = np.zeros(-(-len(symbols) // shared) * shared, np.uint8)
    padded[: len(symbols)] = symbols
    # All symbols of a byte at once, as one little-endian integer: symbol i moves from bit 8 i to bit i * bits.
    together = padded.view(f"<u{shared}")
    result = together.copy()
    for place in range(1, shared):
        result |= together >> place * (8 - bits)
    packed: Octets = result.astype(np.uint8)
    return packed.tobytes()


def _split_low(distances: Integers, low: int) -> bytes:
    """Return the low bits: a plane for each whole byte, lowest first, then four bits, two in a byte."""
    planes = [(distances >> shift).astype(np.uint8).tobytes() for shift in range(0, low - 7, 8)]
    if low % 8:
        planes.append(_share((distances >> (low - LOW_STEP)).astype(np.uint8) & np.uint8(15), LOW_STEP))
    return b"".join(planes)


def _join_low(data: Octets, count: int, low: int, dtype: np.dtype[Any]) -> Integers:
    """Return low bits as integers; the inverse of `_split_low`."""
    result = np.zeros(count, dtype)
    for place, shift in enumerate(range(0, low - 7, 8)):
        result |= data[place * count : (place + 1) * count].astype(dtype) << dtype.type(shift)
    if low % 8:
        half = data[low // 8 * count :]
        nibbles = read_symbols(half, count, BucketCode(0, 2))
        result |= nibbles.astype(dtype) << dtype.type(low - LOW_STEP)
    return result
