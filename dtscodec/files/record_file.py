"""An append-only file of records that survives a crash of the process.

Each record ends in a seal: a digest over itself and the seal before it. A record that is incomplete or was changed ends
the file: it is cut off when the file is opened, with all records after it.
"""

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dtscodec.errors import OutputError, Remedy
from dtscodec.files.output_file import OTHER_OUTPUT, output_errors

_HEAD_BYTES = 9
"""Before the content of a record: one byte for its kind, eight for the length of the content."""

_SEAL_BYTES = 32


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a file.

    Parameters
    ----------
    kind : bytes
        One byte.
    begin, end : int
        Range of its content in the file.
    seal : bytes
        SHA-256 over the seal before it, its kind, length and content.
    """

    kind: bytes
    begin: int
    end: int
    seal: bytes


class RecordFile:
    """A file of records, locked against other processes until `close`.

    Parameters
    ----------
    path : Path
        The file; it is created if it does not exist.
    magic : bytes
        First bytes of the file.

    Attributes
    ----------
    records : list of Record
        The records, in the order of the file.

    Raises
    ------
    OutputError
        The file cannot be written, is locked by another process, or does not begin with `magic`.
    """

    def __init__(self, path: Path, magic: bytes) -> None:
        self.path, self._magic = path, magic
        with output_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Lock before reading: another process may be appending.
            self._lock()
            self._begin()
            # Take records up to the first that is incomplete or was changed.
            while (record := self._next_sound()) is not None:
                self.records.append(record)
            # Cut off the rest, so that the file ends where the next record goes.
            self.cut(len(self.records))
        except BaseException:
            os.close(self._file)
            raise

    def append(self, kind: bytes, content: bytes) -> None:
        """Append a record; `read` is the inverse.

        Parameters
        ----------
        kind : bytes
            One byte.
        content : bytes
            The content, of any length.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        head = kind + len(content).to_bytes(8, "little")
        begin = self._end + _HEAD_BYTES
        seal = self._seal(head, content)
        with output_errors(self.path):
            # The seal comes last: without it the next opening cuts the record off.
            self._write(head + content + seal)
        # Only after the write: if that fails, the next record overwrites what it left.
        self.records.append(Record(kind, begin, begin + len(content), seal))

    def read(self, record: Record) -> bytes:
        """Return the content of a record; the inverse of `append`.

        Parameters
        ----------
        record : Record
            One of `records`.

        Raises
        ------
        OutputError
            The file cannot be read.
        """
        with output_errors(self.path):
            return os.pread(self._file, record.end - record.begin, record.begin)

    def cut(self, count: int) -> None:
        """Remove all but the first records.

        Parameters
        ----------
        count : int
            How many records stay.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        del self.records[count:]
        with output_errors(self.path):
            os.ftruncate(self._file, self._end)

    def close(self, remove: bool = False) -> None:
        """Close the file.

        Parameters
        ----------
        remove : bool
            Whether the file is deleted.
        """
        try:
            if remove:
                # Before the lock is released, so that no other process resumes from a file that is about to go.
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._file)

    @property
    def _end(self) -> int:
        """Offset at which the last record ends."""
        return self.records[-1].end + _SEAL_BYTES if self.records else len(self._magic)

    def _seal(self, head: bytes, content: bytes) -> bytes:
        # Each seal covers the one before it, so no record can be left out or moved; the first covers the magic.
        before = self.records[-1].seal if self.records else self._magic
        return hashlib.sha256(before + head + content).digest()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            problem = f"{self.path}: expected no other process at work on it, got one"
            raise OutputError(problem, Remedy("wait for it, or choose another output ({out})")) from error

    def _begin(self) -> None:
        found = os.pread(self._file, len(self._magic), 0)
        # The file may be empty, or end within the magic after a crash.
        if not self._magic.startswith(found):
            detail = "expected a journal of an earlier encode or nothing, got another file"
            raise OutputError(f"{self.path}: {detail}", OTHER_OUTPUT)
        self.records: list[Record] = []
        with output_errors(self.path):
            os.pwrite(self._file, self._magic, 0)

    def _next_sound(self) -> Record | None:
        """Return the record after the last known one; None if there is none, or it is incomplete or was changed."""
        head = os.pread(self._file, _HEAD_BYTES, self._end)
        begin = self._end + _HEAD_BYTES
        end = begin + int.from_bytes(head[1:], "little")
        # Check the length against the file before reading: a damaged one may be anything.
        if len(head) < _HEAD_BYTES or end + _SEAL_BYTES > os.fstat(self._file).st_size:
            return None
        content = os.pread(self._file, end - begin, begin)
        seal = os.pread(self._file, _SEAL_BYTES, end)
        return Record(head[:1], begin, end, seal) if seal == self._seal(head, content) else None

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self._end
        while view:
            # A call may write less than asked, and 2 GiB at most.
            count = os.pwrite(self._file, view, at)
            view, at = view[count:], at + count
