"""The bytes that belong to one block, and the numbers in them (spec section 5)."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUMBER_DTYPES = {"F32": 4, "BF16": 2}
"""Dtypes of the arena `numbers` and their bytes."""


NO_NUMBERS: NDArray[np.float32] = np.empty(0, np.float32)


class StreamSizes(NamedTuple):
    """Lengths of the streams of one block.

    Parameters
    ----------
    bitmaps : int
        Bytes of its bitmaps, before compression.
    numbers : int
        Count of its numbers.
    bands : tuple of int
        Bytes of its codes, band by band.
    raw : int
        Bytes that are stored exactly.
    """

    bitmaps: int = 0
    numbers: int = 0
    bands: tuple[int, ...] = ()
    raw: int = 0


@dataclass(frozen=True, slots=True)
class Streams:
    """What one block stores.

    Parameters
    ----------
    bitmaps : bytes
        Bitmap of coded rows, then of coded columns, each if the block has one.
    numbers : float32 [count]
        Norm, levels and scales, in the order of the block's kind.
    bands : tuple of bytes
        Packed codes, band by band.
    raw : bytes
        Exact bytes, perhaps as planes.
    """

    bitmaps: bytes = b""
    numbers: NDArray[np.float32] = field(default_factory=lambda: NO_NUMBERS)
    bands: tuple[bytes, ...] = ()
    raw: bytes = b""

    @property
    def sizes(self) -> StreamSizes:
        """Their lengths."""
        return StreamSizes(len(self.bitmaps), len(self.numbers), tuple(map(len, self.bands)), len(self.raw))


def numbers_to_bytes(numbers: NDArray[np.float32], dtype: str) -> bytes:
    """Store numbers as F32, or rounded to BF16; the inverse of `numbers_from_bytes` for numbers of that dtype."""
    if dtype == "F32":
        return numbers.astype("<f4", copy=False).tobytes()
    bits = numbers.astype("<f4", copy=False).view("<u4").astype(np.uint64)
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2").tobytes()


def numbers_from_bytes(data: bytes, dtype: str) -> NDArray[np.float32]:
    """Read numbers of either dtype as float32; the inverse of `numbers_to_bytes`."""
    if dtype == "F32":
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def round_numbers(numbers: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Numbers as they come back from a pack that stores them so.

    >>> round_numbers(np.array([1.001], np.float32), "BF16").tolist()
    [1.0]
    """
    rounded: NDArray[np.float32] = numbers_from_bytes(numbers_to_bytes(numbers, dtype), dtype).copy()
    return rounded
