"""Ranges of remote files, kept in a local folder while an output is made, so that each is transferred once.

The folder is shared with worker processes. It goes when the work ends. What a killed process left is removed by the
next one that works in the same place: an owner holds a lock, so what can be locked has none.
"""

import contextlib
import fcntl
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from dtscodec.files.output_file import output_errors
from dtscodec.storage.paths import is_remote, work_folder

_OWNER = "owner.lock"


def staging_folder_for(out: Path, *sources: object) -> AbstractContextManager[Path | None]:
    """A folder for what is fetched of some sources while an output is made; None if none of them is a remote name.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    if not any(is_remote(source) for source in sources):
        return nullcontext()
    return staging_folder(work_folder(out))


@contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """A folder in `place` that is there within the ``with``; removes those that have no owner any more."""
    _sweep(place)
    stem = f".dtscodec-{secrets.token_hex(8)}"
    folder, hidden = place / f"{stem}.staging", place / f"{stem}.tmp"
    try:
        with output_errors(place):
            hidden.mkdir(mode=0o700)  # Checkpoints may be secret.
            lock = (hidden / _OWNER).open("wb")
        with lock, _locked(lock.fileno()):
            with output_errors(place):
                hidden.rename(folder)  # Nobody sees it without its lock.
            yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rename(hidden)  # Nobody can add to it any more.
        shutil.rmtree(hidden, ignore_errors=True)


def keep(folder: Path, name: str, size: int, pieces: Iterable[bytes]) -> Path:
    """The file of a range.

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


def _sweep(place: Path) -> None:
    for folder in place.glob(".dtscodec-*.staging"):
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
