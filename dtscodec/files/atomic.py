"""Atomic outputs: a temporary in the same directory, unnamed where possible, is synced to disk and then renamed.

The temporary is removed if the ``with`` block fails, on Ctrl-C too. Failures of the file system are raised as
`OutputError`; exceptions of the block, such as those about files that are read meanwhile, pass unchanged.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from dtscodec.errors import OutputError, Remedy
from dtscodec.files.output_file import OTHER_OUTPUT, REPLACE_OUTPUT, output_errors, output_file, unnamed_file

__all__ = ["atomic_directory", "atomic_file", "output_errors", "output_exists", "output_file", "output_is_input"]

_NO_LINKS = {
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EXDEV,
    errno.EMLINK,
    errno.EINVAL,
}
"""Errors of os.link on file systems that have no hard links."""


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], force: bool = False, inputs: Iterable[Path] = ()) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when the ``with`` block succeeds.

    Parameters
    ----------
    path : path
        The file to make. Its directory must exist.
    force : bool
        Replace a regular file that exists. Without it no file is ever replaced, not even one that appeared while
        this one was being written.
    inputs : iterable of Path
        Files that must not be replaced, because they are read meanwhile.

    Yields
    ------
    BinaryIO
        A buffered, empty file in the same directory, open for reading and writing.

    Raises
    ------
    OutputError
        The output exists, cannot be made, or cannot be written.
    """
    path = Path(path)
    _check_file(path, force, inputs)
    # In the output's own directory: neither a rename nor a hard link can cross file systems.
    temporary = _sibling(path)
    try:
        with unnamed_file(temporary, path) as file:
            yield file
        with output_errors(path):
            # The content is on disk by now, so a crash leaves the whole file under this name, or none.
            _publish_file(temporary, path, force)
    finally:
        # After a hard link, the temporary is a second name of the output.
        with contextlib.suppress(OSError):  # It does not exist, or could not even be made.
            temporary.unlink()


@contextlib.contextmanager
def atomic_directory(
    path: str | os.PathLike[str],
    force: bool = False,
    inputs: Iterable[Path] = (),
    replaceable: Callable[[str], bool] = lambda name: True,
) -> Iterator[Path]:
    """Fill a directory that appears under its name when the ``with`` block succeeds.

    Parameters
    ----------
    path : path
        The directory to make. Its parent must exist; it may itself exist if it is empty.
    force : bool
        Replace a directory that exists. The old one is renamed, and deleted once the new one is in place.
    inputs : iterable of Path
        Files and directories that must not be replaced, because they are read meanwhile.
    replaceable : callable
        Takes a file's name relative to the old directory, and returns whether the file may be deleted.

    Yields
    ------
    Path
        An empty directory with the same parent. Files in it should be made by `output_file`.

    Raises
    ------
    OutputError
        As for `atomic_file`; also if the old directory has a file that is not `replaceable`, or is a home directory,
        a working directory or a mount point.
    """
    # A symbolic link stays; the directory that it leads to is replaced.
    path = Path(os.path.realpath(path))
    check_new_directory(path, force, inputs, replaceable)
    temporary = _sibling(path)
    try:
        with output_errors(path):
            temporary.mkdir()
        yield temporary
        with output_errors(path):
            _publish_directory(temporary, path, force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sibling(path: Path) -> Path:
    return path.parent / f".dtscodec-{secrets.token_hex(8)}.tmp"


def _check_file(path: Path, force: bool, inputs: Iterable[Path]) -> None:
    _check_parent(path)
    if not os.path.lexists(path):
        return
    if not force:
        raise output_exists(path)
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        kind = "a directory" if path.is_dir() else "a device"
        raise OutputError(f"{path}: expected a file to replace, got {kind}", OTHER_OUTPUT)
    # `samefile` recognizes an input under other names, such as links.
    if any(other.exists() and path.exists() and other.samefile(path) for other in inputs):
        raise output_is_input(path)


def check_new_directory(
    path: Path, force: bool = False, inputs: Iterable[Path] = (), replaceable: Callable[[str], bool] = lambda name: True
) -> None:
    """Raise the OutputError that `atomic_directory` would raise for the same arguments, before any work is done.

    Parameters
    ----------
    path, force, inputs, replaceable
        As for `atomic_directory`.
    """
    path = Path(os.path.realpath(path))
    _check_parent(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path}: expected a directory or nothing, got a file", OTHER_OUTPUT)
    with output_errors(path):
        if not any(path.iterdir()):
            return
    if not force:
        raise output_exists(path)
    # The directory is an input, or contains one.
    if any(path == real or path in real.parents for real in (Path(os.path.realpath(p)) for p in inputs)):
        raise output_is_input(path)
    here, home = (Path(os.path.realpath(p)) for p in (".", os.path.expanduser("~")))
    # Never delete a directory that the user lives or works in, nor one above it.
    if path in {here, home, *here.parents, *home.parents} or path.is_mount():
        raise OutputError(f"{path}: expected a directory to replace, got one in use", OTHER_OUTPUT)
    # A symbolic link counts as a file even if it leads to a directory: it would be deleted.
    for file in sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir()):
        name = file.relative_to(path).as_posix()
        if not replaceable(name):
            detail = f"expected only files that may be deleted to replace the directory, got {name!r}"
            raise OutputError(f"{path}: {detail}", Remedy("remove it first"))


def _check_parent(path: Path) -> None:
    parent = path.parent
    if not parent.exists():
        raise OutputError(f"{path}: expected the directory {parent}, got none", Remedy("create it first"))
    if not parent.is_dir():
        raise OutputError(f"{path}: expected the directory {parent}, got a file", OTHER_OUTPUT)


def output_exists(path: Path) -> OutputError:
    """Return the error for an output that exists and must not be replaced.

    Parameters
    ----------
    path : Path
        The output.
    """
    return OutputError(f"{path}: expected nothing of that name, got an output", REPLACE_OUTPUT)


def output_is_input(path: Path) -> OutputError:
    """Return the error for an output that is one of the inputs.

    Parameters
    ----------
    path : Path
        The output.
    """
    return OutputError(f"{path}: expected an output apart from the input, got the input", OTHER_OUTPUT)


def _publish_file(temporary: Path, path: Path, force: bool) -> None:
    """Give the temporary its name: by renaming with `force`, else by a hard link, which never replaces a file."""
    if force:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise output_exists(path) from None
        except OSError as e:
            if e.errno not in _NO_LINKS:
                raise
            # Without hard links, check and rename: a file that appears in between would be replaced.
            if os.path.lexists(path):
                raise output_exists(path) from None
            os.rename(temporary, path)
    # The new name is durable only when its directory is synced.
    _fsync_directory(path.parent)


def _publish_directory(temporary: Path, path: Path, force: bool) -> None:
    """Give the temporary its name. Renaming replaces only an empty directory, so the old one is renamed first."""
    # `output_file` has synced the files; their names still need it.
    for directory, _, _ in os.walk(temporary):
        _fsync_directory(Path(directory))
    old = _sibling(path)
    try:
        # A crash between the two renames leaves the old directory under a temporary name.
        if force and path.exists():
            os.rename(path, old)
        # Fails if a directory with files has appeared there meanwhile.
        os.rename(temporary, path)
        _fsync_directory(path.parent)
    finally:
        if old.exists() and not path.exists():  # The second renaming failed.
            os.rename(old, path)
        shutil.rmtree(old, ignore_errors=True)


def _fsync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
