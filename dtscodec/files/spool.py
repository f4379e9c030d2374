"""Bytes that wait until a file is put together: in memory while few, in an unnamed temporary file when many."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dtscodec.files.output_file import output_errors

MEMORY_BYTES = 2**25
PIECE_BYTES = 2**20


class Spool:
    """A queue of bytes.

    Parameters
    ----------
    folder : Path
        Where the temporary file lies. It has no name, so nothing is left of it however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - closed by `close`
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def write(self, data: bytes) -> None:
        """Append bytes; OutputError if the disk is full."""
        with output_errors(self._folder):
            self._file.write(data)
        self._length += len(data)

    def pieces(self) -> Iterator[bytes]:
        """All bytes, in pieces of bounded size."""
        with output_errors(self._folder):
            self._file.seek(0)  # which writes what is still buffered
        while piece := self._file.read(PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Forget the bytes."""
        with contextlib.suppress(OSError):  # A full disk holds up what is still buffered.
            self._file.close()
