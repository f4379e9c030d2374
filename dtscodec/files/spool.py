"""A queue of bytes for a file that is assembled later: in memory while small, else in an unnamed temporary file."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dtscodec.files.output_file import output_errors

MEMORY_BYTES = 2**25
"""Most bytes in memory."""

PIECE_BYTES = 2**20
"""Bytes that are read back at a time."""


class Spool:
    """A queue of bytes: written first, then read back.

    Parameters
    ----------
    folder : Path
        Directory of the temporary file. The file has no name, so it is gone however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - closed by `close`
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def write(self, data: bytes) -> None:
        """Append bytes; the inverse of `pieces`.

        Parameters
        ----------
        data : bytes
            The bytes.

        Raises
        ------
        OutputError
            They cannot be written, for instance because the disk is full.
        """
        with output_errors(self._folder):
            self._file.write(data)
        self._length += len(data)

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes in order, at most `PIECE_BYTES` at a time; the inverse of `write`.

        Raises
        ------
        OutputError
            Buffered bytes cannot be written.
        """
        with output_errors(self._folder):
            self._file.seek(0)  # This flushes the buffer.
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Discard the bytes."""
        with contextlib.suppress(OSError):  # The buffer cannot be flushed to a full disk.
            self._file.close()
