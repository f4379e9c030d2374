"""The files and folders of a directory, local or in remote storage, in one request."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import is_remote, storage


@dataclass(frozen=True, slots=True)
class Listing:
    """Names in a directory. Links count as their targets; devices and broken links are left out.

    Parameters
    ----------
    files : tuple of str
        Ascending.
    folders : tuple of str
        Ascending.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]


def list_directory(path: Path, is_complete: bool = False) -> Listing:
    """Return the names in a directory.

    Parameters
    ----------
    path : Path
        A directory, local or remote.
    is_complete : bool
        Whether no name may be missing in the result. Without it the cache of the Hub's client, which may have only some
        of the files, stands in for a Hub that does not answer; with it only with HF_HUB_OFFLINE.

    Raises
    ------
    Exception
        Errors of the storage; see `dtscodec.storage.storage_errors`.
    """
    entries = sorted(_entries(path, is_complete))
    files = tuple(name for name, is_folder in entries if not is_folder)
    return Listing(files, tuple(name for name, is_folder in entries if is_folder))


def _entries(path: Path, is_complete: bool) -> list[tuple[str, bool]]:
    """Return names, each with whether it is a folder."""
    if isinstance(path, HubPath):
        return [(name, size is None) for name, size in path.sizes(is_complete).items()]
    if is_remote(path):
        files, root = storage(path)
        found = [(PurePosixPath(entry["name"]), entry["type"] == "directory") for entry in files.ls(root, detail=True)]
        # A store of objects may list the directory itself.
        return [(entry.name, is_folder) for entry, is_folder in found if entry != PurePosixPath(root)]
    with os.scandir(path) as entries:
        return [(entry.name, entry.is_dir()) for entry in entries if entry.is_dir() or entry.is_file()]
