"""Records that are appended to a file and found again after whatever ended the process.

Each record is sealed by a digest over itself and the seal before it: one that was half written, or was changed since,
ends the file, and what comes after it is cut off.
"""

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from dtscodec.errors import OutputError, Remedy
from dtscodec.files.output_file import OTHER_OUTPUT, output_errors

_HEAD_BYTES = 9
"""Of a record: its kind, and the length of its content."""
_SEAL_BYTES = 32


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a file: one byte for its kind, the range of its content, and its seal."""

    kind: bytes
    begin: int
    end: int
    seal: bytes


class RecordFile:
    """A file of records, open for one process at a time until `close`.

    Parameters
    ----------
    path : Path
        Made if there is none.
    magic : bytes
        First bytes of such a file.

    Raises
    ------
    OutputError
        It cannot be written, another process is at work on it, or it is something else.
    """

    def __init__(self, path: Path, magic: bytes) -> None:
        self.path, self._magic = path, magic
        with output_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock()
            self._begin()
            while (record := self._next_sound()) is not None:
                self.records.append(record)
            self.cut(len(self.records))
        except BaseException:
            os.close(self._file)
            raise

    def append(self, kind: bytes, content: bytes) -> None:
        """Add a record.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        head = kind + len(content).to_bytes(8, "little")
        begin = self._end + _HEAD_BYTES
        seal = self._seal(head, content)
        with output_errors(self.path):
            self._write(head + content + seal)
        self.records.append(Record(kind, begin, begin + len(content), seal))

    def read(self, record: Record) -> bytes:
        """A record's content."""
        with output_errors(self.path):
            return os.pread(self._file, record.end - record.begin, record.begin)

    def cut(self, count: int) -> None:
        """Keep the first records only."""
        del self.records[count:]
        with output_errors(self.path):
            os.ftruncate(self._file, self._end)

    def close(self, remove: bool = False) -> None:
        """Close the file, or do away with it."""
        try:
            if remove:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._file)

    @property
    def _end(self) -> int:
        """Where the last record ends."""
        return self.records[-1].end + _SEAL_BYTES if self.records else len(self._magic)

    def _seal(self, head: bytes, content: bytes) -> bytes:
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
        if not self._magic.startswith(found):
            detail = "expected a journal of an earlier encode or nothing, got another file"
            raise OutputError(f"{self.path}: {detail}", OTHER_OUTPUT)
        self.records: list[Record] = []
        with output_errors(self.path):
            os.pwrite(self._file, self._magic, 0)

    def _next_sound(self) -> Record | None:
        """The record after the last one that is known; None if none is, or it is not whole."""
        head = os.pread(self._file, _HEAD_BYTES, self._end)
        begin = self._end + _HEAD_BYTES
        end = begin + int.from_bytes(head[1:], "little")
        if len(head) < _HEAD_BYTES or end + _SEAL_BYTES > os.fstat(self._file).st_size:
            return None
        content = os.pread(self._file, end - begin, begin)
        seal = os.pread(self._file, _SEAL_BYTES, end)
        return Record(head[:1], begin, end, seal) if seal == self._seal(head, content) else None

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self._end
        while view:
            count = os.pwrite(self._file, view, at)
            view, at = view[count:], at + count
