"""Reading pieces of a file at given offsets, from many threads, without mapping it."""

import contextlib
import os
import threading
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import CheckpointError

Bytes: TypeAlias = NDArray[np.uint8]
"""Bytes as an array: uint8 [length]."""

FileSignature = tuple[int, int, int, int]
"""Device, inode, size, and time of the last change in nanoseconds."""


class RandomAccessFile:
    """A file open for reading at offsets.

    Raises
    ------
    CheckpointError
        There is no such file, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as e:
            raise CheckpointError(f"{path}: expected a file to read, got '{e.strerror}'") from e
        self._lock = threading.Lock()

    def opened(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """The file as a stream."""
        return contextlib.nullcontext(cast(BinaryIO, self.file))

    def read(self, offset: int, size: int) -> Bytes:
        """Read `size` bytes into a fresh buffer.

        Raises
        ------
        CheckpointError
            The file ends before, or cannot be read.
        """
        if offset + size > self.signature()[2]:  # Before allocating: the file may have shrunk.
            raise self._ends_early(offset, size)
        result = np.empty(size, np.uint8)
        view, done = result.data, 0
        try:
            while done < size and (count := self._read_into(view[done:], offset + done)):
                done += count
        except OSError as e:
            raise CheckpointError(f"{self.path}: expected to read at offset {offset}, got '{e.strerror}'") from e
        if done < size:
            raise self._ends_early(offset, size)
        return result

    def prefetch(self, offset: int, size: int) -> None:
        """Let the system begin to read a range, where it can."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # The read itself will meet it.
                os.posix_fadvise(self.file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def signature(self) -> FileSignature:
        """What changes when the content does, as the file is now."""
        s = os.fstat(self.file.fileno())
        return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns

    def close(self) -> None:
        """Close the file; reading is then an error."""
        self.file.close()

    def _read_into(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.file.fileno(), [view], offset)
        with self._lock:
            self.file.seek(offset)
            return self.file.readinto(view) or 0

    def _ends_early(self, offset: int, size: int) -> CheckpointError:
        have = self.signature()[2]
        return CheckpointError(f"{self.path}: expected at least {offset + size} bytes, got {have}: it was cut off")
