"""Digests of a pack: computed as it is written, verified before any byte of it is used (spec section 3.4, D2 to D4)."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import sha256
from typing import Final

from dtscodec.errors import ChecksumError, Remedy, TruncatedError
from dtscodec.files.range_reader import RangeReader
from dtscodec.format.container import DIGEST_BYTES, LAYER, LAYER_BLOCK, MAX_HEADER, Header, parse_pack_header
from dtscodec.format.summary import MAX_BLOCK, MIN_BLOCK

MAX_DIGESTS: Final = 4096
"""Most digest rows; the smallest digest block that needs no more is chosen."""

_REPLACE_PACK = Remedy("copy or download the pack again")


def digest_block_size(data_bytes: int) -> int:
    """Return the size of a digest block, in bytes, for `data_bytes` bytes after the digests (spec section 9)."""
    # Doubled, since a digest block is a power of two (section 3.3).
    block = MIN_BLOCK
    while block < MAX_BLOCK and data_bytes > MAX_DIGESTS * block:
        block *= 2
    return block


class BlockHasher:
    """Computes the digests of a pack while it is written; `CheckedBytes` verifies them.

    Parameters
    ----------
    block : int
        Size of a digest block in bytes.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self._left = block
        self._hash = sha256()
        self._rows: list[bytes] = []

    def update(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        view = memoryview(data)
        while len(view):
            # Fill the current block; close it when it is full.
            piece, view = view[: self._left], view[self._left :]
            self._hash.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._close()

    def _close(self) -> None:
        self._rows.append(self._hash.digest())
        self._hash, self._left = sha256(), self._block

    def rows(self) -> list[bytes]:
        """Return the SHA-256 of each block, once all bytes have been added."""
        if self._left < self._block:  # The last block is shorter.
            self._close()
        return self._rows

    def digests(self, header: bytes) -> bytes:
        """Return the bytes of the arena `digests`: the pack id, then a row per block.

        Parameters
        ----------
        header : bytes
            Length and header of the file.
        """
        return pack_id(header, self.rows()) + b"".join(self.rows())


def pack_id(header: bytes, rows: Iterable[bytes]) -> bytes:
    """Return the pack id: SHA-256 of header and digest rows (spec section 3.4).

    Parameters
    ----------
    header : bytes
        Length and header of the file.
    rows : iterable of bytes
        SHA-256 of each digest block, in order.
    """
    # Rows cover the data, and the header is hashed itself: no byte of the file is left out.
    return sha256(header + b"".join(rows)).digest()


class CheckedRange:
    """A part of a file that digest blocks cover; a block is verified when a range touches it for the first time.

    Parameters
    ----------
    source : RangeReader
        The file.
    where : str
        Name of the source, for messages.
    begin, end : int
        The part, as offsets in the file.
    block : int
        Size of a digest block in bytes; the last one may be shorter.
    rows : list of bytes
        SHA-256 of each block.
    """

    def __init__(self, source: RangeReader, where: str, begin: int, end: int, block: int, rows: list[bytes]) -> None:
        self._source, self._where = source, where
        self._begin, self._end, self._block, self._rows = begin, end, block, rows
        self._checked = bytearray(len(rows))  # A flag per digest block: 1 once it was verified.

    def read(self, begin: int, end: int) -> bytes:
        """Read a range, and verify the digest blocks that it touches; see `CheckedBytes.read`."""
        if begin == end:
            return b""
        # The digest blocks that the range touches. If all are verified already, the range alone is read.
        first, last = (begin - self._begin) // self._block, (end - 1 - self._begin) // self._block
        if all(self._checked[first : last + 1]):
            return read_exactly(self._source, self._where, begin, end)
        # Read whole blocks, verify them, and cut the range out.
        start = self._begin + first * self._block
        data = read_exactly(self._source, self._where, start, min(self._begin + (last + 1) * self._block, self._end))
        for number in range(first, last + 1):
            self._check(number, data[(number - first) * self._block : (number - first + 1) * self._block])
        return data[begin - start : end - start]

    def check_all(self) -> Iterator[int]:
        """Verify every digest block, also those verified before; yield the number of bytes of each."""
        for number in range(len(self._rows)):
            begin = self._begin + number * self._block
            data = read_exactly(self._source, self._where, begin, min(begin + self._block, self._end))
            self._check(number, data)
            yield len(data)

    def _check(self, number: int, data: bytes) -> None:
        """Verify one digest block (rule D3)."""
        if sha256(data).digest() != self._rows[number]:
            begin = self._begin + number * self._block
            detail = f"bytes {begin} to {begin + len(data)} differ from what was written: damaged"
            raise ChecksumError("checksum", self._where, detail, "3.4", _REPLACE_PACK)
        self._checked[number] = 1


class CheckedBytes:
    """Verified access to the bytes of a pack; `BlockHasher` computes the digests.

    Header and digests are read and checked on construction, the rest by range. The digests of a residual layer are read
    when it is first used.

    Parameters
    ----------
    source : RangeReader
        The pack. Closed by `close`.
    where : str
        Name of the source, for messages.

    Attributes
    ----------
    header : Header
        The parsed header.
    id : bytes
        The pack id.
    front_rows : list of bytes
        SHA-256 of each digest block of the front.

    Raises
    ------
    FormatError
        Rules C1 to C6, D1, D2 and S1 to S3.
    """

    def __init__(self, source: RangeReader, where: str) -> None:
        self._source, self._where = source, where
        # One read covers the longest header, so that its length need not be read first.
        self.header: Header = parse_pack_header(source.read(0, 8 + MAX_HEADER), source.size, where)
        # Before anything but the header is used (rule D2).
        self.id, rows = self._read_digests()
        count, begin = self.header.digest_count, self.header.arenas["digests"].end
        front_end, block = self.header.front_end, self.header.summary.block
        self.front_rows = rows[:count]
        self._front = CheckedRange(source, where, begin, front_end, block, self.front_rows)
        self._layer_row = rows[count:]

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def read(self, begin: int, end: int) -> bytes:
        """Read a range of the file after the digests, and verify the digest blocks that it touches.

        Parameters
        ----------
        begin, end : int
            Offsets in the file, both in the front or both in the residual layer.

        Raises
        ------
        ChecksumError
            A digest block that the range touches is damaged (rule D3), or the digests of the residual layer (rule D4).
        TruncatedError
            The file has been truncated since it was opened.
        """
        part = self._front if end <= self.header.front_end else self._layer
        return part.read(begin, end)

    def check_all(self) -> Iterator[int]:
        """Verify every digest block, also those verified before; yield the number of bytes of each."""
        yield from self._front.check_all()
        if self.header.has_layer:
            yield from self._layer.check_all()

    @cached_property
    def _layer(self) -> CheckedRange:
        """The bytes after the digests of the residual layer (rule D4)."""
        arena = self.header.arenas[LAYER[0]]
        data = read_exactly(self._source, self._where, arena.begin, arena.end)
        if [sha256(data).digest()] != self._layer_row:
            detail = "digests of the residual layer differ from what was written: damaged"
            raise ChecksumError("checksum", self._where, detail, "3.4", _REPLACE_PACK)
        rows = [data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES)]
        return CheckedRange(self._source, self._where, arena.end, self._source.size, LAYER_BLOCK, rows)

    def _read_digests(self) -> tuple[bytes, list[bytes]]:
        """Return the pack id, which must match, and the other rows (rule D2)."""
        arena = self.header.arenas["digests"]
        data = read_exactly(self._source, self._where, arena.begin, arena.end)
        # Row 0 is the pack id, the others are the digests of the blocks.
        own, *rows = (data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES))
        if pack_id(self.header.data, rows) != own:
            detail = "header or digests differ from what was written: damaged"
            raise ChecksumError("checksum", self._where, detail, "3.4", _REPLACE_PACK)
        return own, rows


def read_exactly(source: RangeReader, where: str, begin: int, end: int) -> bytes:
    """Return a range of a file; TruncatedError if it has been truncated since it was opened."""
    data = source.read(begin, end - begin)
    if len(data) != end - begin:
        raise TruncatedError("truncated", where, f"expected {end} bytes, got {begin + len(data)}", "3.1")
    return data
