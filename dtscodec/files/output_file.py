"""New files that are synced to disk before they are closed, and whose errors are one line with a remedy."""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from dtscodec.errors import OutputError, Remedy

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OTHER_OUTPUT = Remedy("choose another output ({out})")
"""Remedy where an output cannot be written or replaced at all."""
REPLACE_OUTPUT = Remedy("pass {force} to replace it, or choose another output ({out})", {"force": "True"})
FREE_SPACE = Remedy("free some space, or choose another output ({out})")

_REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EEXIST: REPLACE_OUTPUT,
    errno.ENOTEMPTY: REPLACE_OUTPUT,
}


@contextlib.contextmanager
def output_file(path: Path, mode: str = "xb", shown: Path | None = None) -> Iterator[BinaryIO]:
    """Create a file, and sync it to disk in the end; failures to write are `OutputError`.

    Parameters
    ----------
    path : Path
        The file; it must not exist.
    mode : str
        ``"xb"``, or ``"w+b"`` to read back as well.
    shown : Path, optional
        The name for messages, where `path` is a temporary.

    Raises
    ------
    OutputError
        The file exists, or cannot be written.
    """
    shown = shown or path
    with output_errors(shown):
        # O_EXCL: never open a file that exists. O_BINARY: on Windows, line ends would be translated without it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with _durable(descriptor, mode, shown) as file:
        yield file


@contextlib.contextmanager
def unnamed_file(path: Path, shown: Path) -> Iterator[BinaryIO]:
    """Create a file that has no name until its content is on disk, for writing and reading.

    However the process ends before, no file is left. Where the system has no unnamed files, it is an `output_file`.

    Parameters
    ----------
    path : Path
        The name that the file gets in the end; no file of that name may exist.
    shown : Path
        The name for messages.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):
        # AttributeError: the system has no O_TMPFILE. OSError: the file system has no unnamed files.
        with output_file(path, "w+b", shown) as file:
            yield file
        return
    with _durable(descriptor, "w+b", shown, lambda: _name(descriptor, path)) as file:
        yield file


def _name(descriptor: int, path: Path) -> None:
    """Give an unnamed file a name, in the way that open(2) describes for O_TMPFILE."""
    # With any src_dir_fd, though it is not used, Python calls linkat, which follows the link to the file.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


@contextlib.contextmanager
def _durable(descriptor: int, mode: str, shown: Path, at_end: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """Yield a buffered file over a descriptor; in the end sync it, call `at_end` and close it."""
    raw = _OutputFile(descriptor, shown)
    file = cast(BinaryIO, io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw))
    try:
        yield file
        with output_errors(shown):
            # The content is on disk before `at_end` gives the file a name, for which the descriptor must still be open.
            file.flush()
            os.fsync(descriptor)
            at_end()
            file.close()
    finally:
        if not file.closed:  # Without flushing, which would fail again where it failed before.
            raw.close()
            with contextlib.suppress(ValueError, OSError):
                file.close()


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn every OSError into an `OutputError` that names a path and a remedy.

    Parameters
    ----------
    path : Path
        The output, for messages.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as e:
        reason = e.strerror or type(e).__name__
        remedy = _REMEDIES.get(e.errno or 0, OTHER_OUTPUT)
        raise OutputError(f"{path}: expected to write it, got '{reason}'", remedy) from e


class _OutputFile(io.FileIO):
    """A raw file whose failures to write are `OutputError`."""

    def __init__(self, descriptor: int, shown: Path) -> None:
        super().__init__(descriptor, "r+b")
        self._shown = shown

    def write(self, data: "ReadableBuffer", /) -> int:
        with output_errors(self._shown):
            return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        with output_errors(self._shown):
            return super().truncate(size)
