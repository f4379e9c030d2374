"""A lock on a local directory, so that one process at a time writes to it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dtscodec.errors import OutputError, Remedy
from dtscodec.files.output_file import output_errors

LOCK_NAME = ".dtscodec.lock"


@contextlib.contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory. The system releases it when the process ends, however it does.

    Directories in remote storage have no locks.

    Parameters
    ----------
    directory : Path
        The directory.

    Raises
    ------
    OutputError
        Another process holds the lock, or the directory cannot be written.
    """
    if not isinstance(directory, Path):
        yield
        return
    with output_errors(directory):
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            detail = "expected to be its only writer, got another one"
            raise OutputError(f"{directory}: {detail}", Remedy("wait for it to end")) from error
        yield
    finally:
        os.close(descriptor)
