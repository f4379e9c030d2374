"""Packed codes: small integers <-> bytes (spec section 5.3), and bitmaps (section 5.1)."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

WIDTHS: Final = (2, 4, 8, 16)
ALIGNMENT: Final = 16

_STORED: Final = {2: np.uint8, 4: np.uint8, 8: np.int8, 16: np.float16}
BYTE_CODES: Final = {
    bits: np.stack([np.arange(256) >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], axis=1).astype(np.uint8)
    for bits in (2, 4)
}
"""For each byte the codes that it holds, first element first: [256, 8 / bits]."""


def vector_bytes(count: int, bits: int) -> int:
    """Bytes that a packed vector takes, padding included.

    >>> vector_bytes(384, 2), vector_bytes(1, 2)
    (96, 16)
    """
    return -(-count * bits // (8 * ALIGNMENT)) * ALIGNMENT


def pack_codes(codes: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Pack vectors of codes.

    Parameters
    ----------
    codes : array [k, n]
        For 2 and 4 bits integers below 2**bits, for 8 bits int8, for 16 bits float16.
    bits : int
        2, 4, 8 or 16.

    Returns
    -------
    uint8 [k, vector_bytes(n, bits)]
        The inverse of `unpack_codes`.
    """
    vectors, count = codes.shape
    padded = np.zeros((vectors, vector_bytes(count, bits) * 8 // bits), _STORED[bits])
    padded[:, :count] = codes
    if bits >= 8:
        return padded.astype(padded.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    per_byte = 8 // bits
    packed: NDArray[np.uint8] = padded[:, ::per_byte].astype(np.uint8)
    for position in range(1, per_byte):
        packed |= padded[:, position::per_byte] << np.uint8(position * bits)
    return packed


def unpack_codes(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.generic]:
    """Unpack vectors of codes: uint8 [k, vector_bytes(n, bits)] -> [k, n]; the inverse of `pack_codes`.

    Examples
    --------
    >>> unpack_codes(pack_codes(np.array([[3, 0, 2, 1]]), 2), 4, 2).tolist()
    [[3, 0, 2, 1]]
    """
    if bits == 8:
        return packed.view(np.int8)[:, :count]
    if bits == 16:
        return packed.view("<f2")[:, :count]
    codes: NDArray[np.uint8] = np.take(BYTE_CODES[bits], packed, axis=0).reshape(len(packed), -1)
    return codes[:, :count]


def padding_is_zero(packed: NDArray[np.uint8], count: int, bits: int) -> bool:
    """Whether all bits after the `count` codes of each packed vector are zero (rule E1)."""
    whole, rest = divmod(count * bits, 8)
    return not packed[:, whole + bool(rest) :].any() and (not rest or not (packed[:, whole] >> rest).any())


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
