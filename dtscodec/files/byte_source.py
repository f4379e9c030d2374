"""Where the bytes of a pack come from."""

import os
from pathlib import Path
from typing import Protocol


class ByteSource(Protocol):
    """Bytes that can be read by range, by several threads at once.

    Attributes
    ----------
    size : int
    far : bool
        Whether each read takes a request to another machine, so that as little as possible should be read.
    """

    size: int
    far: bool

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on; fewer only at the end."""

    def close(self) -> None:
        """Free what is held."""


class FileSource:
    """A local file. It is read, not mapped, so that a file cut short meanwhile is an error and not a crash.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    far = False

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read a range; the file position is not touched, so threads do not disturb each other."""
        data = os.pread(self._file.fileno(), length, offset)
        while len(data) < length and (more := os.pread(self._file.fileno(), length - len(data), offset + len(data))):
            data += more  # One call reads 2 GiB at most.
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MemorySource:
    """Bytes in memory."""

    far = False

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return a slice."""
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Do nothing."""
