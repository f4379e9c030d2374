"""Reading bytes by range, from many threads at once: the protocol, a local file, and bytes in memory."""

import contextlib
import os
import threading
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
"""Bytes as an array: uint8 [length]."""

LocalSignature: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size, and time of the last change in nanoseconds."""


class RangeReader(Protocol):
    """Bytes that can be read by range, from many threads at once.

    Attributes
    ----------
    size : int
        Length in bytes when it was opened.
    is_remote : bool
        Whether each read takes a request to another machine, so that as little as possible should be read.
    """

    size: int
    is_remote: bool

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer only where the file ends before.

        Parameters
        ----------
        offset, size : int
            In bytes.

        Raises
        ------
        OSError
            The file cannot be read.
        """

    def keep(self, end: int) -> None:
        """Read the first bytes, up to an offset, once for all later reads, where that saves requests."""

    def close(self) -> None:
        """Close the file; reading is then an error."""


class LocalFile:
    """A `RangeReader` over a local file, which is not mapped: reading one that was truncated is no crash.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    is_remote = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self.size = self.signature()[2]
        self._lock = threading.Lock()

    def opened(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Return the file as a stream."""
        return contextlib.nullcontext(cast(BinaryIO, self._file))

    def read(self, offset: int, size: int) -> bytes:
        """Return a range, shorter only where the file ends before. Fast for the many small reads of a pack."""
        # pread and preadv leave the file position alone, so that threads do not disturb each other.
        data = os.pread(self._file.fileno(), size, offset)
        while len(data) < size and (more := os.pread(self._file.fileno(), size - len(data), offset + len(data))):
            data += more  # One call reads 2 GiB at most.
        return data

    def read_array(self, offset: int, size: int) -> Bytes:
        """Return a range in a fresh, writable buffer: uint8 [size], shorter only where the file ends before."""
        # The size now, before anything is allocated: the file may have been truncated since it was opened.
        size = max(0, min(size, self.signature()[2] - offset))
        result = np.empty(size, np.uint8)
        view, done = result.data, 0
        while done < size and (count := self._read_into(view[done:], offset + done)):  # 2 GiB a call at most.
            done += count
        return result[:done]

    def prefetch(self, offset: int, size: int) -> None:
        """Let the system begin to read a range, where it can."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # `read_array` raises it.
                os.posix_fadvise(self._file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def signature(self) -> LocalSignature:
        """Return the file's identity, size and time of change as they are now: a new content changes them."""
        s = os.fstat(self._file.fileno())
        return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns

    def keep(self, end: int) -> None:
        """Do nothing: the system keeps what was read."""

    def close(self) -> None:
        """Close the file; reading is then an error."""
        self._file.close()

    def _read_into(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], offset)
        # Without preadv the position is shared, so threads take turns.
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(view) or 0


class MemoryFile:
    """A `RangeReader` over bytes in memory.

    Parameters
    ----------
    data : bytes
        The whole content.
    """

    is_remote = False

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return a range, shorter only where the bytes end before."""
        return self._data[offset : offset + size]

    def keep(self, end: int) -> None:
        """Do nothing: all bytes are in memory."""

    def close(self) -> None:
        """Do nothing: there is no file."""
