"""Streams of one block, and the storage of numbers (spec section 5)."""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.dtypes import DType

NUMBER_DTYPES = {"F32": 4, "BF16": 2}
"""Dtypes of the arena `numbers`, and bytes per number."""

ARENA_ITEM_BYTES = {"U8": 1} | NUMBER_DTYPES
"""Dtypes of all arenas, and bytes per item."""

_FLOATS: Final[dict[DType, np.dtype[Any]]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
"""numpy's dtypes of floats; it has none of BF16."""

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
    """The data of one block.

    Parameters
    ----------
    bitmaps : bytes
        Bitmap of the coded rows, then of the coded columns; none for a subset that is all of them.
    numbers : float32 [count]
        Norm, levels and scales, in the order that the block's kind defines.
    bands : tuple of bytes
        Packed codes, band by band.
    raw : bytes
        Exact bytes, plain or as planes.
    """

    bitmaps: bytes = b""
    numbers: NDArray[np.float32] = field(default_factory=lambda: NO_NUMBERS)
    bands: tuple[bytes, ...] = ()
    raw: bytes = b""

    @property
    def sizes(self) -> StreamSizes:
        """Lengths of the streams."""
        return StreamSizes(len(self.bitmaps), len(self.numbers), tuple(map(len, self.bands)), len(self.raw))


def numbers_to_bytes(numbers: NDArray[np.float32], dtype: str) -> bytes:
    """Return numbers as bytes of F32 or BF16, rounded to nearest even; the inverse of `numbers_from_bytes`.

    Parameters
    ----------
    numbers : float32 [count]
        Finite numbers.
    dtype : {"F32", "BF16"}
        Dtype in which they are stored.
    """
    if dtype == "F32":
        return numbers.astype("<f4", copy=False).tobytes()
    # BF16 is the upper half of float32. Adding 0x7FFF and the lowest bit of that half rounds to nearest, ties to even.
    bits = numbers.astype("<f4", copy=False).view("<u4").astype(np.uint64)
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2").tobytes()


def numbers_from_bytes(data: bytes, dtype: str) -> NDArray[np.float32]:
    """Return numbers of a dtype, F32 or BF16, as float32; the inverse of `numbers_to_bytes`."""
    if dtype == "F32":
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    # The upper half of each float32; the lower half is zero.
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def floats_from_bytes(data: NDArray[np.uint8], dtype: DType) -> NDArray[np.floating[Any]]:
    """Return the bytes of a tensor of F16, BF16, F32 or F64 as numbers; BF16 as float32."""
    if dtype == "BF16":
        return numbers_from_bytes(data.tobytes(), dtype)
    return np.ascontiguousarray(data).view(_FLOATS[dtype])


def round_numbers(numbers: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Return numbers rounded to the dtype in which a pack stores them, F32 or BF16.

    Examples
    --------
    >>> round_numbers(np.array([1.001], np.float32), "BF16").tolist()
    [1.0]
    """
    rounded: NDArray[np.float32] = numbers_from_bytes(numbers_to_bytes(numbers, dtype), dtype).copy()
    return rounded
