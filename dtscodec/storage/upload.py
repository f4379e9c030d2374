"""Outputs in remote storage: written to a local file without a name, then uploaded as a whole."""

import contextlib
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

from dtscodec.errors import OutputError, Remedy
from dtscodec.files.atomic import output_exists, output_is_input
from dtscodec.files.output_file import output_file
from dtscodec.storage.paths import storage
from dtscodec.storage.storage_errors import write_errors

_PIECE_BYTES = 2**25
"""Bytes per piece of an upload. S3 takes 10,000 pieces: 335 GB."""


def check_upload(path: Path, force: bool = False) -> None:
    """Refuse a remote output if it exists or its bucket is missing.

    Parameters
    ----------
    path : Path
        The file to make, in remote storage.
    force : bool
        Whether a file that exists may be replaced.

    Raises
    ------
    OutputError
        The output exists and must not be replaced, or its bucket is missing or cannot be reached.
    """
    with write_errors(path):
        exists = path.exists()
        if not exists and not _has_bucket(path):
            raise OutputError(f"{path}: expected the bucket {path.parents[-1]}, got none", Remedy("create it first"))
    if exists and not force:
        raise output_exists(path)


@contextmanager
def uploaded_file(path: Path, force: bool = False, inputs: Iterable[Path] = ()) -> Iterator[BinaryIO]:
    """Write a remote file that appears under its name when the ``with`` block succeeds.

    Parameters
    ----------
    path : Path
        The file to make, in remote storage.
    force : bool
        Replace a file that exists. Without it no file is replaced; where the storage supports it, not even one that
        appeared meanwhile.
    inputs : iterable of Path
        Files that must not be replaced, because they are read meanwhile.

    Yields
    ------
    BinaryIO
        An empty local file, open for reading and writing.

    Raises
    ------
    OutputError
        The output exists, or cannot be written.
    """
    check_upload(path, force)
    if str(path) in map(str, inputs):
        raise output_is_input(path)
    folder = Path(tempfile.gettempdir())
    temporary = folder / f".dtscodec-{secrets.token_hex(8)}.tmp"
    with output_file(temporary, "w+b", shown=folder) as file:
        # A file without a name is gone however the process ends.
        temporary.unlink()
        yield file
        # Again, as an output may have appeared meanwhile, and not every storage can refuse to replace it.
        check_upload(path, force)
        file.seek(0)
        _upload(file, path, force)


def _has_bucket(path: Path) -> bool:
    try:
        return path.parents[-1].exists()
    except PermissionError:
        return True  # Credentials that may write need not be able to list.


def _upload(file: BinaryIO, path: Path, force: bool) -> None:
    """Upload a file. An interrupt waits for the piece being sent, so that the upload can be aborted."""
    stop = Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(_send, file, path, force, stop).result()
        finally:
            # The executor then waits for the thread, which aborts the upload at its next check.
            stop.set()


def _send(file: BinaryIO, path: Path, force: bool, stop: Event) -> None:
    """Send a file piece by piece, and commit the upload; discard it on any failure."""
    with write_errors(path):
        remote = _open(path, force)
        try:
            while piece := file.read(_PIECE_BYTES):
                remote.write(piece)
                _check(stop)
            # This sends the last piece; only `commit` makes the file appear.
            remote.close()
            _check(stop)
            remote.commit()
        except BaseException as e:
            # Clean up; further failures must not hide the first.
            with contextlib.suppress(Exception):
                remote.close()
            with contextlib.suppress(Exception):
                remote.discard()
            if isinstance(e, FileExistsError):
                raise output_exists(path) from e
            raise


def _open(path: Path, force: bool) -> Any:
    """Return the remote file, open for writing; its content appears with `commit`."""
    files, name = storage(path)
    if not force:
        with contextlib.suppress(NotImplementedError, ValueError):  # Not every storage can refuse to replace.
            return files.open(name, "xb", autocommit=False, block_size=_PIECE_BYTES)
    return files.open(name, "wb", autocommit=False, block_size=_PIECE_BYTES)


def _check(stop: Event) -> None:
    if stop.is_set():
        raise InterruptedError("interrupted")
