"""Raw bytes <-> byte planes (spec section 5.4).

Bytes of equal significance resemble each other more than the bytes of one weight do: the plane of signs and exponents
compresses well. Planes that do not compress are stored plain.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.primitives.zstd_frames import RAW_LEVEL, compress, compress_by_frequency, decompress

CHUNK_BYTES = 2**20
"""Bytes of a tensor that are divided into planes together."""
SAMPLE_BYTES = 2**15
"""Bytes of a plane on which both ways to compress are tried."""
LISTED_BYTES = 8
"""Approximate bytes of the index per plane length."""


def plane_number(size: int, planes: int) -> int:
    """Return the number of planes of `size` bytes, over all chunks; `planes` of each chunk."""
    return -(-size // CHUNK_BYTES) * planes


def plane_sizes(size: int, planes: int) -> list[int]:
    """Return the uncompressed length of each plane of `size` bytes, in storage order: `planes` of each chunk.

    >>> plane_sizes(2**20 + 6, 2), plane_number(2**20 + 6, 2)
    ([524288, 524288, 3, 3], 4)
    """
    full, rest = divmod(size, CHUNK_BYTES)
    return [CHUNK_BYTES // planes] * planes * full + ([rest // planes] * planes if rest else [])


def split_planes(data: NDArray[np.uint8], planes: int) -> tuple[bytes, tuple[int, ...] | None]:
    """Return bytes as compressed planes if that is shorter; the inverse of `join_planes`.

    Parameters
    ----------
    data : uint8 [n]
        The bytes of a block, a multiple of `planes`.
    planes : int
        Bytes of an element.

    Returns
    -------
    stored : bytes
        All planes, in storage order.
    lengths : tuple of int, or None
        Stored length of each plane; None if the bytes are stored plain.
    """
    # A plane is stored as a frame only if that is shorter, so that one of its plain length is plain.
    pieces: list[bytes] = []
    for begin in range(0, len(data), CHUNK_BYTES):
        # Column p of [elements, bytes of an element] is plane p.
        for plane in data[begin : begin + CHUNK_BYTES].reshape(-1, planes).T:
            plain = plane.tobytes()
            frame = _frame(plain)
            pieces.append(frame if len(frame) < len(plain) else plain)
    stored = b"".join(pieces)
    # The comparison includes the lengths, which the index lists.
    if len(stored) + LISTED_BYTES * len(pieces) >= len(data):
        return data.tobytes(), None
    return stored, tuple(map(len, pieces))


def _frame(plain: bytes) -> bytes:
    """Compress a plane by repetitions or by frequencies, whichever is shorter for its beginning."""
    sample = plain[:SAMPLE_BYTES]
    if len(compress(sample, RAW_LEVEL)) < len(compress_by_frequency(sample)):
        return compress(plain, RAW_LEVEL)
    return compress_by_frequency(plain)


def join_planes(stored: bytes, lengths: Sequence[int], size: int, planes: int) -> NDArray[np.uint8]:
    """Restore bytes from planes; the inverse of `split_planes`.

    Parameters
    ----------
    stored : bytes
        All planes, in storage order.
    lengths : sequence of int
        Stored length of each plane in bytes.
    size : int
        Number of bytes to restore.
    planes : int
        Bytes of an element.

    Raises
    ------
    ValueError
        A frame is damaged or does not hold exactly its plane (rule P2).
    """
    data = np.empty(size, np.uint8)
    begin = offset = 0
    sizes = plane_sizes(size, planes)
    # Chunk by chunk, and in it plane by plane.
    for position in range(0, len(sizes), planes):
        plain = sizes[position]
        chunk = data[begin : begin + plain * planes].reshape(plain, planes)
        for plane, length in enumerate(lengths[position : position + planes]):
            chunk[:, plane] = np.frombuffer(_plane(stored[offset : offset + length], plain), np.uint8)
            offset += length
        begin += plain * planes
    return data


def _plane(piece: bytes, plain: int) -> bytes:
    # A plane of its plain length is stored as it is.
    if len(piece) == plain:
        return piece
    try:
        content, used = decompress(piece, plain)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    if len(content) != plain or used != len(piece):
        raise ValueError(f"expected a frame of {plain} bytes and no more, got {len(content)}")
    return content
