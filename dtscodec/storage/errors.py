"""Failures of storage, here or elsewhere, as one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtscodec.errors import CheckpointError, DtsError, OutputError, PackNotFoundError
from dtscodec.storage.hub_errors import told
from dtscodec.storage.paths import is_remote

_WAYS_OUT: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "check the name"),
    (PermissionError, "check your credentials and rights"),
    (Exception, "check network, address and credentials, and try again"),
)
"""What to do about failures of remote storage."""


@contextmanager
def read_errors(place: Path, way_out: str = "") -> Iterator[None]:
    """Turn failures to read into a `CheckpointError` that names the place and a way out."""
    with _told(place, CheckpointError, "read", way_out):
        yield


@contextmanager
def pack_errors(place: Path) -> Iterator[None]:
    """Turn failures to read a pack into a `PackNotFoundError` that names the place and a way out."""
    with _told(place, PackNotFoundError, "read", ""):
        yield


@contextmanager
def write_errors(place: Path) -> Iterator[None]:
    """Turn failures to write into an `OutputError` that names the place and a way out."""
    with _told(place, OutputError, "write", "" if is_remote(place) else "choose another place with -o"):
        yield


@contextmanager
def _told(place: Path, kind: type[DtsError], verb: str, way_out: str) -> Iterator[None]:
    try:
        yield
    except DtsError:
        raise
    except Exception as e:  # Clients of storage end in nearly any exception.
        if not isinstance(e, OSError) and not is_remote(place):
            raise
        why = reason(e)
        said = told(e) if is_remote(place) else None
        if said is not None:
            why, way_out = said[0], way_out or said[1]
        elif is_remote(place):
            way_out = way_out or next(text for found, text in _WAYS_OUT if isinstance(e, found))
        raise kind(f"{place}: expected to {verb} it, got '{why}'" + (way_out and f"; {way_out}")) from e


def reason(error: Exception) -> str:
    """What an exception says, in one line.

    >>> reason(FileNotFoundError(2, "No such file")), reason(PermissionError("Forbidden")), reason(TimeoutError())
    ('No such file', 'Forbidden', 'TimeoutError')
    """
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(said.split()) or type(error).__name__
    return line if len(line) <= 200 else line[:197] + "..."
