"""Folders of modules in a model directory, as sentence-transformers writes them."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dtscodec.checkpoints.lfs_pointer import check_no_pointer
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.format.weight_files import is_valid_folder
from dtscodec.storage.listing import Listing
from dtscodec.storage.storage_errors import read_errors

MODULES = "modules.json"
"""The file that lists the modules of a sentence-transformers model."""

_ROUTERS = ("router_config.json", "config.json")
"""Files in which a router (`Router`, formerly `Asym`) lists the folders of its modules."""

_MAX_DEPTH = 8
"""Most routers within routers."""


def module_folders(directory: Path, listing: Listing) -> list[str]:
    """Return the folders of a directory's modules, relative to it, ascending.

    A directory without a ``modules.json`` has none, and so has one whose ``modules.json`` is not a list of modules.

    Parameters
    ----------
    directory : Path
        The model directory.
    listing : Listing
        Its files and folders.

    Raises
    ------
    CheckpointError
        The file is no JSON, or a module's folder leads out of the directory.
    """
    if MODULES not in listing.files:
        return []
    modules = read_json(directory / MODULES)
    if not isinstance(modules, list) or not all(isinstance(item, dict) for item in modules):
        return []
    found: set[str] = set()
    for module in modules:
        folder = _checked_folder(directory / MODULES, "", module.get("path", ""))
        found |= {folder, *_routed_folders(directory, folder, _MAX_DEPTH)}
    return sorted(found - {""})


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Parameters
    ----------
    path : Path
        The file, local or remote.

    Raises
    ------
    CheckpointError
        It cannot be read, or is no JSON.
    """
    with read_errors(path):
        data = path.read_bytes()
    check_no_pointer(path, data)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, got '{str(error).splitlines()[0]:.80}'") from error


def _routed_folders(directory: Path, folder: str, depth: int) -> Iterator[str]:
    """Yield the folders of the modules that the router in a folder, if it has one, chooses among."""
    for name in _ROUTERS:
        path = directory / folder / name if folder else directory / name
        with read_errors(path):
            is_there = path.is_file()
        types = _module_types(path) if is_there and depth else {}
        for inner in types:
            found = _checked_folder(path, folder, inner)
            yield found
            yield from _routed_folders(directory, found, depth - 1)
        if types:
            return


def _module_types(path: Path) -> dict[str, Any]:
    """Return the classes of a router's modules by folder; empty if the file is not a router's."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("structure"), dict):
        return {}
    types = content.get("types")
    return types if isinstance(types, dict) else {}


def _checked_folder(where: Path, parent: str, path: object) -> str:
    """Return a folder relative to the model directory, normalized; an empty text for the directory itself."""
    if not isinstance(path, str):
        raise CheckpointError(f"{where}: expected the path of a folder, got {path!r:.60}")
    folder = str(PurePosixPath(parent, path))
    folder = "" if folder == "." else folder
    if folder and not is_valid_folder(folder):
        raise CheckpointError(
            f"{where}: expected a folder within the directory, without hidden ones, got {path!r:.60}",
            Remedy("correct it, or name the file of weights itself"),
        )
    return folder
