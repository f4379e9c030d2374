"""Reading a file in remote storage by range. With a staging folder each range is transferred once."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dtscodec.errors import CheckpointError, Remedy
from dtscodec.files.range_reader import Bytes
from dtscodec.storage.paths import storage
from dtscodec.storage.staging import stage_range
from dtscodec.storage.storage_errors import pack_errors, read_errors

SHORT_HEAD = 2**16
"""Bytes of the longest header of a pack, with its length."""
HEAD_BYTES = 2**18
"""Bytes that opening a pack reads in one request: header, digests and index of most packs."""

RemoteSignature = tuple[str, str, int, int]
"""Name, a version of the content as the storage reports it (such as an ETag), size; and 0 in place of a time."""

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
"""Fields of a file's description that change with its content, most reliable first."""

_PIECE_BYTES = 2**25
"""Bytes per request."""

_AHEAD = 4
"""Ranges of a file that are transferred in the background at the same time."""


class RemoteFile:
    """A `RangeReader` over a file in remote storage.

    Parameters
    ----------
    path : Path
        The file, in remote storage.
    staging : Path, optional
        The folder for ranges. On machines that do not have it, ranges are read directly.
    is_pack : bool
        Whether the file is read as a pack. Its first bytes are then read on opening, since they are needed anyway, and
        the storage is not asked later whether the file was replaced, since the pack's digests reveal that.
    head : int
        How many of its first bytes are read then; see also `keep`.

    Raises
    ------
    CheckpointError
        There is no such file, or it cannot be read.
    PackNotFoundError
        The same for `is_pack`.
    """

    is_remote = True

    def __init__(
        self, path: Path, staging: Path | None = None, *, is_pack: bool = False, head: int = HEAD_BYTES
    ) -> None:
        self.path, self._is_pack = path, is_pack
        self._errors = pack_errors if is_pack else read_errors
        self._staging = staging if staging and staging.is_dir() else None
        # The version comes first: whatever is read later must belong to it.
        self._signature = self._read_signature()
        self.size = self._signature[2]
        self._closed = False
        head = min(head, self.size) if is_pack else 0
        self._head = self._piece(0, head) if head else b""
        self._background = ThreadPoolExecutor(_AHEAD)
        self._lock = threading.Lock()

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file as a stream that does not read ahead."""
        files, name = storage(self.path)
        with self._errors(self.path), files.open(name, "rb", cache_type="none") as file:
            yield file

    def read(self, offset: int, size: int) -> bytes:
        """Return a range, shorter only where the file ends before. The head of a pack needs no request.

        Raises
        ------
        CheckpointError, PackNotFoundError, OutputError
            As for `read_array`.
        """
        end = min(offset + size, self.size)
        if offset < len(self._head) < end:
            self.keep(end)  # Only what is not there yet.
        return self._head[offset:end] if end <= len(self._head) else self.read_array(offset, size).tobytes()

    def keep(self, end: int) -> None:
        """Transfer the first bytes of the file, up to an offset, and keep them for `read`."""
        with self._lock:
            begin = len(self._head)
            if end > begin:
                self._head += b"".join(self._pieces(begin, end - begin))

    def read_array(self, offset: int, size: int) -> Bytes:
        """Return a range in a fresh, writable buffer: uint8 [size], shorter only where the file ends before.

        Parameters
        ----------
        offset, size : int
            In bytes.

        Raises
        ------
        CheckpointError, PackNotFoundError
            The file was replaced since it was opened, or cannot be read. The latter is raised for packs.
        OutputError
            The staging folder has no room.
        """
        size = max(0, min(size, self.size - offset))
        if size and self._staging:
            staged = np.fromfile(self._stage(self._staging, offset, size), np.uint8)
            if staged.size != size:
                raise self._wrong_length(size, staged.size)
            return staged
        result, done = np.empty(size, np.uint8), 0
        for piece in self._pieces(offset, size):
            result[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        return result[:done]

    def prefetch(self, offset: int, size: int) -> None:
        """Begin to transfer a range into the staging folder; where that fails, `read_array` raises the error."""
        if size and self._staging:
            self._background.submit(self._stage, self._staging, offset, size)

    def signature(self) -> RemoteSignature:
        """Return the version of the file when it was opened; no other version is ever read."""
        return self._signature

    def close(self) -> None:
        """Stop transfers; reading is then an error."""
        # Waiting transfers are cancelled; one that is running fails at its next piece.
        self._closed = True
        self._background.shutdown(cancel_futures=True)

    def _stage(self, folder: Path, offset: int, size: int) -> Path:
        # The name covers the version, so ranges of a file that was replaced are never mixed in.
        name = hashlib.sha256(repr((*self._signature, offset, size)).encode()).hexdigest()
        return stage_range(folder, name, size, self._pieces(offset, size))

    def _pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield a range piece by piece; the last piece only if the file was not replaced meanwhile."""
        end = offset + size
        try:
            for begin in range(offset, end, _PIECE_BYTES):
                piece = self._piece(begin, min(begin + _PIECE_BYTES, end))
                # Check before the last piece is handed over: no range of two versions is ever complete.
                if begin + len(piece) == end and not self._is_pack:
                    self._check_same()
                yield piece
        except CheckpointError:
            self._check_same()  # If the file was replaced, that is the better explanation.
            raise

    def _piece(self, begin: int, end: int) -> bytes:
        if self._closed:
            raise CheckpointError(f"{self.path}: expected an open file, got one that was closed")
        files, name = storage(self.path)
        with self._errors(self.path):
            piece: bytes = files.cat_file(name, start=begin, end=end)
        if len(piece) != end - begin and not self._is_pack:
            raise self._wrong_length(end - begin, len(piece))
        return piece

    def _read_signature(self) -> RemoteSignature:
        files, name = storage(self.path)
        with self._errors(self.path):
            info = files.info(name)
            version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
            return str(self.path), version, int(info["size"] or 0), 0

    def _check_same(self) -> None:
        if self._read_signature() != self._signature:
            detail = "expected the file that was opened, got another: it was replaced meanwhile"
            raise CheckpointError(f"{self.path}: {detail}", Remedy("start again"))

    def _wrong_length(self, expected: int, got: int) -> CheckpointError:
        return CheckpointError(f"{self.path}: expected a range of {expected} bytes, got {got}", Remedy("try again"))
