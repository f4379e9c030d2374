"""Digests of a pack: computed as it is written, verified before any byte of it is used (spec section 3.4, D1 to D3)."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

from dtscodec.errors import ChecksumError, Remedy, TruncatedError
from dtscodec.files.range_reader import RangeReader
from dtscodec.format.container import DIGEST_BYTES, MAX_HEADER, Header, parse_pack_header
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

    def digests(self, header: bytes) -> bytes:
        """Return the bytes of the arena `digests`: the pack id, then a row per block.

        Parameters
        ----------
        header : bytes
            Length and header of the file.
        """
        if self._left < self._block:  # The last block is shorter.
            self._close()
        return pack_id(header, self._rows) + b"".join(self._rows)


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


class CheckedBytes:
    """Verified access to the bytes of a pack; `BlockHasher` computes the digests.

    Header and digests are read and checked on construction, the rest by range. A digest block is verified when a range
    touches it for the first time.

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

    Raises
    ------
    FormatError
        Rules C1 to C6, D1, D2 and S1 to S3.
    """

    def __init__(self, source: RangeReader, where: str) -> None:
        self._source, self._where = source, where
        # One read covers the longest header, so that its length need not be read first.
        self.header: Header = parse_pack_header(source.read(0, 8 + MAX_HEADER), source.size, where)
        self._size = source.size
        self._origin = self.header.arenas["digests"].end  # Digest blocks begin after the digests themselves.
        # Before anything but the header is used (rule D2).
        self.id, self._rows = self._read_digests()
        self._checked = bytearray(len(self._rows))  # A flag per digest block: 1 once it was verified.

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def read(self, begin: int, end: int) -> bytes:
        """Read a range of the file after the digests, and verify the digest blocks that it touches.

        Parameters
        ----------
        begin, end : int
            Offsets in the file.

        Raises
        ------
        ChecksumError
            A digest block that the range touches is damaged (rule D3).
        TruncatedError
            The file has been truncated since it was opened.
        """
        if begin == end:
            return b""
        # The digest blocks that the range touches. If all are verified already, the range alone is read.
        block = self.header.summary.block
        first, last = (begin - self._origin) // block, (end - 1 - self._origin) // block
        if all(self._checked[first : last + 1]):
            return self._read_source(begin, end)
        # Read whole blocks, verify them, and cut the range out.
        start = self._origin + first * block
        data = self._read_source(start, min(self._origin + (last + 1) * block, self._size))
        for number in range(first, last + 1):
            self._check(number, data[(number - first) * block : (number - first + 1) * block])
        return data[begin - start : end - start]

    def check_all(self) -> Iterator[int]:
        """Verify every digest block, also those verified before; yield the number of bytes of each."""
        block = self.header.summary.block
        for number in range(len(self._rows)):
            begin = self._origin + number * block
            data = self._read_source(begin, min(begin + block, self._size))
            self._check(number, data)
            yield len(data)

    def _read_digests(self) -> tuple[bytes, list[bytes]]:
        """Return the pack id, which must match, and the digest of each block (rule D2)."""
        data = self._read_source(self.header.arenas["digests"].begin, self._origin)
        # Row 0 is the pack id, the others are the digests of the blocks.
        own, *rows = (data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES))
        if pack_id(self.header.data, rows) != own:
            detail = "header or digests differ from what was written: damaged"
            raise ChecksumError("checksum", self._where, detail, "3.4", _REPLACE_PACK)
        return own, rows

    def _read_source(self, begin: int, end: int) -> bytes:
        data = self._source.read(begin, end - begin)
        if len(data) != end - begin:
            raise TruncatedError("truncated", self._where, f"expected {end} bytes, got {begin + len(data)}", "3.1")
        return data

    def _check(self, number: int, data: bytes) -> None:
        """Verify one digest block (rule D3)."""
        if sha256(data).digest() != self._rows[number]:
            begin = self._origin + number * self.header.summary.block
            detail = f"bytes {begin} to {begin + len(data)} differ from what was written: damaged"
            raise ChecksumError("checksum", self._where, detail, "3.4", _REPLACE_PACK)
        self._checked[number] = 1
