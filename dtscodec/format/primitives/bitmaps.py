"""Bitmaps of coded rows and columns <-> bytes (spec section 5.1)."""

import numpy as np
from numpy.typing import NDArray


def pack_bitmap(mask: NDArray[np.bool_]) -> bytes:
    """Pack a mask of n flags into ceil(n / 8) bytes, low bit first; the inverse of `unpack_bitmap`."""
    return np.packbits(mask, bitorder="little").tobytes()


def unpack_bitmap(data: bytes, count: int) -> NDArray[np.bool_]:
    """Unpack a bitmap of `count` flags; the inverse of `pack_bitmap`.

    Raises
    ------
    ValueError
        Padding bits are set.
    """
    flags = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").view(np.bool_)
    if flags[count:].any():
        raise ValueError("expected padding bits of zero")
    return flags[:count]
