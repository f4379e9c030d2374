"""Reading of a pack's arenas: verified bytes by range, zstd frames, lengths and padding (spec section 3.2)."""

from collections.abc import Iterator
from typing import NoReturn

from dtscodec.errors import FormatError
from dtscodec.files.range_reader import RangeReader
from dtscodec.format.container import Arena, Header, padding_before
from dtscodec.format.digests import CheckedBytes
from dtscodec.format.layout import Span
from dtscodec.format.primitives.zstd_frames import decompress

_EMPTY = Arena("U8", (0,), 0, 0)


class ArenaReader:
    """The arenas of a pack. Header and digests are read and checked on construction, the rest on demand.

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
        The pack id, 32 bytes.

    Raises
    ------
    FormatError
        Rules C1 to C6, D1, D2 and S1 to S3.
    """

    def __init__(self, source: RangeReader, where: str) -> None:
        self._where = where
        self._bytes = CheckedBytes(source, where)
        self.header: Header = self._bytes.header
        self.id: bytes = self._bytes.id

    def close(self) -> None:
        """Close the source."""
        self._bytes.close()

    def __contains__(self, name: str) -> bool:
        return name in self.header.arenas

    def arena(self, name: str) -> Arena:
        """Return dtype, shape and offsets of an arena; an empty one if the pack does not have it."""
        return self.header.arenas.get(name, _EMPTY)

    def read(self, name: str, span: Span | None = None) -> bytes:
        """Return verified bytes of an arena.

        Parameters
        ----------
        name : str
            The arena.
        span : tuple of int, optional
            Begin and end, in bytes from the arena's beginning; by default all of it.

        Raises
        ------
        FormatError
            Rule D3.
        """
        arena = self.arena(name)
        if span is None:
            return self._bytes.read(arena.begin, arena.end)
        return self._bytes.read(arena.begin + span[0], arena.begin + span[1])

    def read_span(self, begin: int, end: int) -> bytes:
        """Return verified bytes of the file, of the front or of the residual layer; see `CheckedBytes.read`."""
        return self._bytes.read(begin, end)

    @property
    def front_rows(self) -> list[bytes]:
        """SHA-256 of each digest block of the front."""
        return self._bytes.front_rows

    def read_frame(self, name: str, limit: int) -> bytes:
        """Return the content of an arena that is one zstd frame.

        Parameters
        ----------
        name : str
            The arena.
        limit : int
            Largest content, in bytes.

        Raises
        ------
        FormatError
            Rules D3, I1, W2 and, for the padding after the frame, C7.
        """
        data = self.read(name)
        try:
            content, used = decompress(data, limit)
        except OverflowError as error:
            raise FormatError("limit", f"{self._where}: {name}", str(error), "10") from error
        except ValueError as error:
            raise FormatError("zstd", f"{self._where}: {name}", str(error), "4") from error
        # The frame tells where it ends; only padding may follow.
        self.check_length(name, used)
        self._refuse_padding(name, data[used:])
        return content

    def check_length(self, name: str, length: int) -> None:
        """Check that an arena holds `length` bytes of content and the padding that aligns the next arena (rule C7).

        Raises
        ------
        FormatError
            It is longer or shorter.
        """
        arena = self.arena(name)
        # Padding belongs to the arena before an aligned one; the last arena has none.
        names = [*self.header.arenas, ""]
        following = names[names.index(name) + 1] if name in names else ""
        expected = length + padding_before(following, arena.begin + length)
        if arena.end - arena.begin != expected:
            self.refuse_totals(name, expected, arena.end - arena.begin)

    def check_zeros(self, name: str, length: int) -> None:
        """Check that only zeros follow the first `length` bytes of an arena (rule C7).

        Raises
        ------
        FormatError
            Padding is not zero.
        """
        arena = self.arena(name)
        self._refuse_padding(name, self._bytes.read(arena.begin + length, arena.end))

    def check_digests(self) -> Iterator[int]:
        """Verify every digest block (rule D3); yield the number of bytes of each."""
        yield from self._bytes.check_all()

    def refuse_totals(self, name: str, expected: int, got: int) -> NoReturn:
        """Raise FormatError for an arena whose size is not the one that the index implies."""
        raise FormatError("totals", f"{self._where}: {name}", f"expected {expected} by the index, got {got}", "3.2")

    def _refuse_padding(self, name: str, data: bytes) -> None:
        if any(data):
            raise FormatError("padding", f"{self._where}: {name}", "expected zeros after the content", "3.2")
