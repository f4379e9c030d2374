"""Replace several files of a directory, or none: its former files are restored on failure."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SNAPSHOT = ".dtscodec-before"
"""Folder, in the directory itself, for its former files: hard links, which take no space."""


@contextmanager
def directory_rollback(
    directory: Path, *, is_resumed: bool = False, will_resume: Callable[[BaseException], bool] = lambda error: False
) -> Iterator[list[Path]]:
    """Restore a directory if the ``with`` block fails, unless a later run will resume the work.

    Files in the directory and in its subdirectories must not be changed in place, only replaced.

    Parameters
    ----------
    directory : Path
        An existing directory.
    is_resumed : bool
        Whether the block resumes the work of an interrupted run. On failure the files from before that run are
        restored then.
    will_resume : callable
        Takes the exception that ended the block, and returns whether a later run will resume the work; if so, the
        directory is left unchanged.

    Yields
    ------
    list of Path
        Append the files that the block is about to add; they are removed if it fails.
    """
    snapshot = directory / SNAPSHOT
    # A snapshot that exists is from before an interrupted run, and that state is the one to restore.
    if not snapshot.exists() and not is_resumed:
        _save(directory, snapshot)
    added: list[Path] = []
    try:
        yield added
    except BaseException as error:
        if not will_resume(error):
            # New files are removed; replaced ones come back from the snapshot.
            for path in added:
                path.unlink(missing_ok=True)
            _restore(directory, snapshot)
        raise
    shutil.rmtree(snapshot, ignore_errors=True)


def _save(directory: Path, snapshot: Path) -> None:
    """Link the files of a directory into its snapshot; the inverse of `_restore`."""
    files = [path for path in directory.glob("*") if path.is_file()]
    files += [path for path in directory.glob("*/*") if path.is_file()]
    for path in files:
        target = snapshot / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The link holds the old content after the file itself is replaced.
            os.link(path, target)
        except OSError:  # Not every file system has hard links.
            shutil.copy2(path, target)


def _restore(directory: Path, snapshot: Path) -> None:
    """Move the files of a snapshot back to their places; the inverse of `_save`."""
    # A list, since moving files changes the directories that `rglob` walks.
    for path in list(snapshot.rglob("*")):
        if path.is_file():
            target = directory / path.relative_to(snapshot)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    shutil.rmtree(snapshot, ignore_errors=True)
