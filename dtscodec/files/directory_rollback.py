"""What a directory held before its files are replaced together: it comes back if that fails."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = ".dtscodec-before"
"""Where the files wait, in the directory itself: links, which take no room."""


@contextmanager
def all_or_nothing(directory: Path, made: Iterable[Path], part: Path) -> Iterator[None]:
    """Bring a directory's files back if the block fails, unless `part` is there, with which another run goes on.

    Parameters
    ----------
    directory : Path
        It exists. Its files, and those in its directories, are never changed in place.
    made : iterable of Path
        Files that the block may add, looked at when it fails; they are removed.
    part : Path
    """
    kept = directory / KEPT
    if not kept.exists() and not part.exists():
        _keep(directory, kept)
    try:
        yield
    except BaseException:
        if not part.exists():
            for path in made:
                path.unlink(missing_ok=True)
            _bring_back(directory, kept)
        raise
    shutil.rmtree(kept, ignore_errors=True)


def _keep(directory: Path, kept: Path) -> None:
    files = [path for path in directory.glob("*") if path.is_file()]
    files += [path for path in directory.glob("*/*") if path.is_file()]
    for path in files:
        target = kept / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # Not every file system has links.
            shutil.copy2(path, target)


def _bring_back(directory: Path, kept: Path) -> None:
    for path in list(kept.rglob("*")):
        if path.is_file():
            target = directory / path.relative_to(kept)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    shutil.rmtree(kept, ignore_errors=True)
