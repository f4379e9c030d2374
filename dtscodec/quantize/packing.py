"""Codes <-> packed bytes (spec section 5.3)."""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import assert_never
from dtscodec.quantize.widths import Bits, width_of

VECTOR_ALIGNMENT: Final = 16
"""Bytes that the length of a packed vector is a multiple of."""


@dataclass(frozen=True, slots=True)
class PackedVectors:
    """Packed vectors of one width, with the levels of their codes.

    Parameters
    ----------
    packed : uint8 [k, bytes]
        One vector per row; see `vector_bytes`.
    levels : float32 [tables, levels]
        One level table, or one per vector; none unless the width stores levels.
    count : int
        Codes per vector.
    bits : int
        Bits per code.
    """

    packed: NDArray[np.uint8]
    levels: NDArray[np.float32]
    count: int
    bits: Bits

    def __len__(self) -> int:
        return len(self.packed)

    def pack(self) -> "PackedVectors":
        """Return the vectors themselves, which are packed already; compare `QuantizedVectors.pack`."""
        return self


def vector_bytes(count: int, bits: Bits) -> int:
    """Return the length of a packed vector in bytes, including padding.

    Parameters
    ----------
    count : int
        Codes per vector.
    bits : int
        Bits per code.

    Examples
    --------
    >>> vector_bytes(384, 2), vector_bytes(1, 2)
    (96, 16)
    """
    # Rounded up to the alignment.
    return -(-count * bits // (8 * VECTOR_ALIGNMENT)) * VECTOR_ALIGNMENT


def pack_codes(codes: NDArray[np.generic], bits: Bits) -> NDArray[np.uint8]:
    """Pack vectors of codes; the inverse of `unpack_codes`.

    Parameters
    ----------
    codes : array [k, n]
        Codes in the width's dtype, or integers that fit into it; codes of fewer than 8 bits are below 2**bits.
    bits : int
        Bits per code.

    Returns
    -------
    uint8 [k, vector_bytes(n, bits)]
    """
    vectors, count = codes.shape
    # Padding is zero (rule E1).
    padded = np.zeros((vectors, vector_bytes(count, bits) * 8 // bits), width_of(bits).dtype)
    padded[:, :count] = codes
    match bits:
        case 8 | 16:
            return padded.view(np.uint8)
        case 2 | 4:
            # Several codes share a byte; the first one takes its lowest bits.
            per_byte = 8 // bits
            packed: NDArray[np.uint8] = padded[:, ::per_byte].astype(np.uint8)
            for position in range(1, per_byte):
                packed |= padded[:, position::per_byte] << np.uint8(position * bits)
            return packed
        case _:
            assert_never(bits)


def unpack_codes(packed: NDArray[np.uint8], count: int, bits: Bits) -> NDArray[np.generic]:
    """Unpack vectors of codes; the inverse of `pack_codes`.

    Parameters
    ----------
    packed : uint8 [k, vector_bytes(count, bits)]
        Contiguous.
    count : int
        Codes per vector.
    bits : int
        Bits per code.

    Returns
    -------
    array [k, count]
        In the width's dtype.

    Examples
    --------
    >>> unpack_codes(pack_codes(np.array([[3, 0, 2, 1]]), 2), 4, 2).tolist()
    [[3, 0, 2, 1]]
    """
    match bits:
        case 8 | 16:
            return packed.view(width_of(bits).dtype)[:, :count]
        case 2 | 4:
            # One table lookup per byte gives all of its codes.
            codes: NDArray[np.uint8] = np.take(codes_of_bytes(bits), packed, axis=0).reshape(len(packed), -1)
            return codes[:, :count]
        case _:
            assert_never(bits)


@cache
def codes_of_bytes(bits: Literal[2, 4]) -> NDArray[np.uint8]:
    """Return the codes in each byte value, in order of elements: uint8 [256, 8 / bits]."""
    shifted = [np.arange(256) >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return np.stack(shifted, axis=1).astype(np.uint8)


def padding_is_zero(packed: NDArray[np.uint8], count: int, bits: Bits) -> bool:
    """Return whether all bits after the `count` codes of each packed vector are zero (rule E1)."""
    # Full bytes of codes, and the bits of codes in a byte that they share with padding.
    whole, rest = divmod(count * bits, 8)
    return not packed[:, whole + bool(rest) :].any() and (not rest or not (packed[:, whole] >> rest).any())
