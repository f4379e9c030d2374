"""A local folder for ranges of remote files while an output is made, so that each is transferred once.

The folder is shared with worker processes, and deleted when the work ends. Its owner holds a lock on it. Folders of
killed processes, which are not locked, are deleted by the next process that makes such a folder in the same directory.
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
    """Make a staging folder for the life of the context, and delete those of killed processes.

    Parameters
    ----------
    directory : Path
        The directory that the folder is made in.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """
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
            folder.rename(hidden)  # So that no worker adds a file while the folder is deleted.
        shutil.rmtree(hidden, ignore_errors=True)


def stage_range(folder: Path, name: str, size: int, pieces: Iterable[bytes]) -> Path:
    """Return the file of a range; write it unless another thread or process has.

    Parameters
    ----------
    folder : Path
        The staging folder.
    name : str
        Name of the file in the folder.
    size : int
        Length of the range in bytes.
    pieces : iterable of bytes
        The range. It is consumed only if no other thread or process has written the file.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    path = folder / name
    with output_errors(folder), (folder / f"{name}.lock").open("wb") as lock, _locked(lock.fileno()):
        # Check under the lock: another thread or process may have written it while this one waited.
        if not (path.is_file() and path.stat().st_size == size):
            part = folder / f"{name}.{secrets.token_hex(4)}.part"  # A name of its own, for file systems without locks.
            with part.open("wb") as file:
                file.writelines(pieces)
            # Renamed when complete, so that a range is never seen in part.
            part.replace(path)
    return path


def _sweep(directory: Path) -> None:
    """Delete the staging folders in a directory that no process has locked."""
    for folder in directory.glob(".dtscodec-*.staging"):
        with contextlib.suppress(OSError), (folder / _OWNER).open("r+b") as lock:
            # Fails while the owner lives: the system releases the locks of killed processes.
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
