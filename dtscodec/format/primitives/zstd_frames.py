"""Zstandard frames of known size (spec sections 4, 4.5, 5.1 and 5.4)."""

from collections.abc import Sequence

import zstandard

INDEX_LEVEL = 19
"""Compression level of the index and of bitmaps."""
RAW_LEVEL = 9
"""Compression level of exact bytes."""
MAX_WINDOW = 2**27
"""Largest window that a decoder must support, in bytes."""
_BLOCK_BYTES = 2**17
"""Largest content of one block of a frame."""
_BY_FREQUENCY = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, chain_log=6, search_log=1, write_content_size=True
)
"""Practically no search for repetitions, so that only entropy coding (Huffman) remains."""


def compress(data: bytes | memoryview, level: int, prefix: bytes = b"") -> bytes:
    """Compress into one frame that states its content size; the inverse of `decompress`.

    Parameters
    ----------
    data : bytes
        The content.
    level : int
        Compression level of zstd.
    prefix : bytes
        Bytes that matches may refer to as if they preceded the content: a raw content dictionary (RFC 8878, section 5).
        `decompress` needs the same.
    """
    if not prefix:
        return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)
    # A window that spans prefix and content. Its limits are those of zstd and of decoders.
    window_log = max(10, min((len(prefix) + len(data) - 1).bit_length(), MAX_WINDOW.bit_length() - 1))
    # The tables of a level are of a size for its usual window. In a larger window they would forget most of the prefix,
    # so that a change of a file of 30 MB took 3 MB instead of 3 kB.
    usual = zstandard.ZstdCompressionParameters.from_level(level, source_size=len(prefix) + len(data))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(prefix) + len(data),
        window_log=window_log,
        hash_log=max(usual.hash_log, window_log - 2),
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(dict_data=_raw_dictionary(prefix), compression_params=parameters).compress(data)


def compress_by_frequency(data: bytes) -> bytes:
    """Compress by the frequency of bytes, with practically no search for repetitions; the inverse is `decompress`.

    Suited to signs and exponents of weights, where repetitions are chance matches of a few bytes that cost more than
    they save. For this plane of float weights the result is within a thousandth of the plane's entropy; that of level 9
    is a sixth larger.
    """
    return zstandard.ZstdCompressor(compression_params=_BY_FREQUENCY).compress(data)


def compress_parts(parts: Sequence[bytes]) -> bytes:
    """Compress parts into one frame by the frequency of their bytes; the inverse is `decompress`.

    Each part begins a block of its own, and so has frequencies of its own.

    Parameters
    ----------
    parts : sequence of bytes
        The content, in order.
    """
    compressor = zstandard.ZstdCompressor(compression_params=_BY_FREQUENCY).compressobj(size=sum(map(len, parts)))
    pieces: list[bytes] = []
    for part in filter(None, parts):
        pieces += [compressor.compress(part), compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*pieces, compressor.flush()])


def decompress(data: bytes, limit: int, prefix: bytes = b"") -> tuple[bytes, int]:
    """Decompress the frame at the beginning of `data`; the inverse of `compress`.

    Parameters
    ----------
    data : bytes
        A frame; bytes after it are ignored.
    limit : int
        Largest content size that is accepted, in bytes; checked before memory is allocated.
    prefix : bytes
        The bytes that it was compressed with.

    Returns
    -------
    content : bytes
        The decompressed bytes.
    used : int
        Length of the frame.

    Raises
    ------
    OverflowError
        The frame states a content size above `limit`.
    ValueError
        There is no frame, or it is damaged, or it does not state its content size or states a wrong one.
    """
    size, used = frame_sizes(data, limit)
    raw = _raw_dictionary(prefix) if prefix else None
    try:
        # With the size known, the library writes into one buffer of that size, whatever the blocks claim.
        content = zstandard.ZstdDecompressor(dict_data=raw, max_window_size=MAX_WINDOW).decompress(data[:used])
    except zstandard.ZstdError as error:
        raise ValueError(f"expected a zstd frame, got: {error}") from error
    if len(content) != size:
        raise ValueError(f"expected a zstd frame of {size} bytes, got {len(content)}")
    return content, used


def _raw_dictionary(prefix: bytes) -> zstandard.ZstdCompressionDict:
    """Return bytes as content that precedes a frame's, whatever they begin with."""
    return zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def frame_sizes(data: bytes, limit: int) -> tuple[int, int]:
    """Return the sizes of the frame at the beginning of `data`, from the headers of the frame and of its blocks.

    Parameters
    ----------
    data, limit
        As for `decompress`.

    Returns
    -------
    content, used : int
        Bytes of the content and of the frame.

    Raises
    ------
    OverflowError, ValueError
        As for `decompress`, as far as headers tell.
    """
    try:
        # All claims of the frame's header are checked before anything is allocated.
        parameters = zstandard.get_frame_parameters(data)
        size = parameters.content_size
        if size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            raise ValueError("expected a zstd frame that states its content size")
        if parameters.dict_id:
            raise ValueError(f"expected a zstd frame without dictionary, got one for {parameters.dict_id}")
        if size > limit:
            raise OverflowError(f"expected at most {limit} bytes of content, got {size}")
        if parameters.window_size > MAX_WINDOW:
            raise ValueError(f"expected a window of at most {MAX_WINDOW} bytes, got {parameters.window_size}")
        blocks, used = _walk_blocks(data)
    except zstandard.ZstdError as error:
        raise ValueError(f"expected a zstd frame, got: {error}") from error
    # So that no memory is taken for content that the blocks cannot have.
    if size > blocks * _BLOCK_BYTES:
        raise ValueError(f"expected a zstd frame of {size} bytes, got one of {blocks} blocks")
    return size, used + 4 * parameters.has_checksum


def _walk_blocks(data: bytes) -> tuple[int, int]:
    """Return the number of a frame's blocks, and where the last one ends (RFC 8878, section 3.1.1.2)."""
    position = zstandard.frame_header_size(data)
    blocks, last = 0, False
    while not last:
        # Header of a block, 3 bytes: whether it is the last, 2 bits of kind, 21 bits of size.
        header = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        # A block of kind 1 (RLE) stores one byte, whatever its size when decompressed.
        position += 3 + (1 if kind == 1 else size)
        if position > len(data):
            raise ValueError("expected a whole zstd frame, got a part of one")
        blocks += 1
    return blocks, position
