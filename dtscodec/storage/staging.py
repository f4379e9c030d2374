"""Ranges of remote files in a local folder while an output is made, so that each is transferred once.

The folder is shared with worker processes. It is deleted when the work ends. Folders of killed processes are deleted
by the next process that works in the same directory: an owner holds a lock, so what can be locked has no owner.
"""

import contextlib
import fcntl
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dtscodec.files.output_file import output_errors

_OWNER = "owner.lock"


@contextmanager
def staging_folder(directory: Path) -> Iterator[Path]:
    """Make a folder in a directory for the life of the context; delete those whose owner is gone."""
    _sweep(directory)
    stem = f".dtscodec-{secrets.token_hex(8)}"
    folder, hidden = directory / f"{stem}.staging", directory / f"{stem}.tmp"
    try:
        with output_errors(directory):
            hidden.mkdir(mode=0o700)  # Checkpoints may be secret.
            lock = (hidden / _OWNER).open("wb")
        with lock, _locked(lock.fileno()):
            with output_errors(directory):
                hidden.rename(folder)  # Never visible without its lock.
            yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rename(hidden)  # Nobody can add to it any more.
        shutil.rmtree(hidden, ignore_errors=True)


def stage_range(folder: Path, name: str, size: int, pieces: Iterable[bytes]) -> Path:
    """Return the file of a range, and write it first unless another thread or process has.

    Parameters
    ----------
    folder : Path
    name : str
        Of the file.
    size : int
        Bytes in all.
    pieces : iterable of bytes
        Taken only if neither another thread nor another process did.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    path = folder / name
    with output_errors(folder), (folder / f"{name}.lock").open("wb") as lock, _locked(lock.fileno()):
        if not (path.is_file() and path.stat().st_size == size):
            part = folder / f"{name}.{secrets.token_hex(4)}.part"  # Its own, where nothing can be locked.
            with part.open("wb") as file:
                file.writelines(pieces)
            part.replace(path)
    return path


def _sweep(directory: Path) -> None:
    for folder in directory.glob(".dtscodec-*.staging"):
        with contextlib.suppress(OSError), (folder / _OWNER).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Hold a lock until the file is closed, on file systems that have locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
