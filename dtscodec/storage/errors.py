"""Failures of local and remote storage as errors of one line with a remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtscodec.errors import CheckpointError, DtsError, OutputError, PackNotFoundError, Remedy
from dtscodec.files.output_file import OTHER_OUTPUT
from dtscodec.messages import one_line
from dtscodec.storage.hub_errors import explain_hub_error
from dtscodec.storage.paths import is_remote

_REMEDIES: tuple[tuple[type[Exception], Remedy], ...] = (
    (FileNotFoundError, Remedy("check the name")),
    (PermissionError, Remedy("check your credentials and rights")),
    (Exception, Remedy("check network, address and credentials, and try again")),
)
"""Remedies for failures of remote storage; the first that fits counts."""


@contextmanager
def read_errors(path: Path, remedy: Remedy | None = None) -> Iterator[None]:
    """Turn failures to read into a `CheckpointError` that names the path and a remedy."""
    with _errors_of(path, CheckpointError, "read", remedy):
        yield


@contextmanager
def pack_errors(path: Path) -> Iterator[None]:
    """Turn failures to read a pack into a `PackNotFoundError` that names the path and a remedy."""
    with _errors_of(path, PackNotFoundError, "read", None):
        yield


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn failures to write into an `OutputError` that names the path and a remedy."""
    with _errors_of(path, OutputError, "write", None if is_remote(path) else OTHER_OUTPUT):
        yield


@contextmanager
def _errors_of(path: Path, kind: type[DtsError], verb: str, remedy: Remedy | None) -> Iterator[None]:
    try:
        yield
    except DtsError:
        raise
    except Exception as e:  # Clients of storage end in nearly any exception.
        if not isinstance(e, OSError) and not is_remote(path):
            raise
        why = one_line(e)
        explained = explain_hub_error(e) if is_remote(path) else None
        if explained is not None:
            why, remedy = explained[0], remedy or explained[1]
        elif is_remote(path):
            remedy = remedy or next(usual for found, usual in _REMEDIES if isinstance(e, found))
        raise kind(f"{path}: expected to {verb} it, got '{why}'", remedy) from e
