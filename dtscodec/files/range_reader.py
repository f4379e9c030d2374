"""Reading bytes by range, from many threads at once: the protocol, and bytes in memory."""

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
"""Bytes as an array: uint8 [length]."""

Signature: TypeAlias = tuple[int | str, ...]
"""Numbers and names that change when the content of a file does."""


class RangeReader(Protocol):
    """A file, open for reading by range.

    Attributes
    ----------
    size : int
        Bytes, when it was opened.
    is_remote : bool
        Whether each read takes a request to another machine, so that as little as possible should be read.
    """

    size: int
    is_remote: bool

    def read(self, offset: int, size: int) -> Bytes:
        """Return `size` bytes from `offset` on: uint8 [size], shorter only where the file ends before.

        Parameters
        ----------
        offset, size : int
            In bytes.

        Raises
        ------
        OSError
            The file cannot be read.
        """

    def prefetch(self, offset: int, size: int) -> None:
        """Begin to read a range in the background, where that helps."""

    def signature(self) -> Signature | None:
        """Return what changes with the content, as the file is now; None where content may change unseen."""

    def close(self) -> None:
        """Close the file; reading is then an error."""


class MemoryFile:
    """A `RangeReader` over bytes in memory.

    Parameters
    ----------
    data : bytes
    """

    is_remote = False

    def __init__(self, data: bytes) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self.size = len(data)

    def read(self, offset: int, size: int) -> Bytes:
        """Return a view of a range."""
        return self._data[offset : offset + size]

    def prefetch(self, offset: int, size: int) -> None:
        """Do nothing."""

    def signature(self) -> None:
        """Return None: content may change unseen."""

    def close(self) -> None:
        """Do nothing."""
