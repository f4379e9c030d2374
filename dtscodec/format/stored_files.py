"""Contents of auxiliary files <-> their bytes in a pack (spec section 4.5)."""

from dtscodec.errors import FormatError
from dtscodec.format.primitives.zstd_frames import INDEX_LEVEL, RAW_LEVEL, compress, decompress, frame_sizes

LARGE_FILE = 2**20
"""Carried files beyond this many bytes are compressed at a lower level."""


def compress_file(data: bytes) -> bytes:
    """Return the bytes that a pack stores of a carried file; the inverse of `decompress_file`.

    Parameters
    ----------
    data : bytes
        The content.

    Returns
    -------
    bytes
        A zstd frame, or the content itself if that is not longer.
    """
    return min(data, compress(data, RAW_LEVEL if len(data) > LARGE_FILE else INDEX_LEVEL), key=len)


def decompress_file(stored: bytes, size: int, where: str) -> bytes:
    """Return the content of a carried file; the inverse of `compress_file`.

    Parameters
    ----------
    stored : bytes
        The bytes in the pack.
    size : int
        Length of the content in bytes, from the index.
    where : str
        The file, for messages.

    Raises
    ------
    FormatError
        Rule F2.
    """
    return stored if len(stored) == size else _decompress(stored, size, where)


def compress_change(data: bytes, prefix: bytes) -> bytes:
    """Return the frame of a changed file; the inverse of `decompress_change`.

    Parameters
    ----------
    data : bytes
        The content.
    prefix : bytes
        The base's file of that name.

    Returns
    -------
    bytes
        A zstd frame that can be decompressed with the same prefix only.
    """
    return compress(data, RAW_LEVEL, prefix)


def decompress_change(frame: bytes, size: int, prefix: bytes, where: str) -> bytes:
    """Return the content of a changed file; the inverse of `compress_change`.

    Parameters
    ----------
    frame : bytes
        The bytes in the pack.
    size : int
        Length of the content in bytes, from the index.
    prefix : bytes
        The base's file of that name, of the digest that the index has.
    where : str
        The file, for messages.

    Raises
    ------
    FormatError
        Rule F2.
    """
    return _decompress(frame, size, where, prefix)


def check_change(frame: bytes, size: int, where: str) -> None:
    """Check what the frame of a changed file tells without the base's file: its header and its length.

    Parameters
    ----------
    frame, size, where
        As for `decompress_change`.

    Raises
    ------
    FormatError
        Rule F2.
    """
    try:
        found, used = frame_sizes(frame, size)
    except OverflowError as error:
        raise FormatError("file", where, str(error), "4.5") from error
    except ValueError as error:
        raise FormatError("zstd", where, str(error), "4.5") from error
    if used != len(frame):
        raise FormatError("zstd", where, f"expected a frame of {len(frame)} bytes, got one of {used}", "4.5")
    if found != size:
        raise FormatError("file", where, f"expected {size} bytes, got {found}", "4.5")


def _decompress(frame: bytes, size: int, where: str, prefix: bytes = b"") -> bytes:
    check_change(frame, size, where)
    try:
        return decompress(frame, size, prefix)[0]
    except ValueError as error:
        raise FormatError("zstd", where, str(error), "4.5") from error
