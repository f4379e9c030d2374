"""The index of a directory of packs, `dtscodec.json` (spec section 14), and lookup of packs by path or task."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from dtscodec.errors import CheckpointError, PackNotFoundError
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.messages import listed
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.open_file import new_file
from dtscodec.storage.paths import as_path
from dtscodec.storage.storage_errors import pack_errors, read_errors

INDEX_NAME = "dtscodec.json"

DISTANCES = {
    "distance_to_base": "the base",
    "distance_to_average": "the average",
    "distance_to_pretrained": "the pre-trained base",
}
"""Figures that are norms of deltas from candidate bases (spec section 14), and the names of these bases."""


@dataclass(frozen=True, slots=True)
class ListedPack:
    """An entry of a directory's index.

    Parameters
    ----------
    file : str
        Path of the pack, relative to the directory.
    size : int
        Length of the file in bytes.
    id : str
        The pack id, 64 hex digits.
    figures : mapping of str to float
        Figures about its quality.
    """

    file: str
    size: int
    id: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DirectoryIndex:
    """The content of `dtscodec.json`.

    Parameters
    ----------
    packs : dict of str to ListedPack
        The packs, by task.
    base : str or None
        Path of the base relative to the directory, if it lies inside, or its name on the Hub, `hf://user/repo@commit`.

    Raises
    ------
    ValueError
        A path leads out of the directory.
    """

    packs: dict[str, ListedPack]
    base: str | None = None

    def __post_init__(self) -> None:
        # Paths must stay within the directory (spec section 14).
        within = [self.base] if self.base and not self.base.startswith("hf://") else []
        for path in [pack.file for pack in self.packs.values()] + within:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ValueError(f"expected paths within the directory, got {path!r:.80}")


def write_directory_index(directory: Path, folder: DirectoryIndex) -> None:
    """Write `dtscodec.json`; the inverse of `read_directory_index`."""
    with new_file(directory / INDEX_NAME, force=True) as file:
        file.write(directory_index_text(folder).encode())


def directory_index_text(folder: DirectoryIndex) -> str:
    """Return the text of `dtscodec.json`; the inverse of `parse_directory_index`."""
    document: dict[str, Any] = {
        "version": 1,
        "packs": {task: _listing(pack) for task, pack in sorted(folder.packs.items())},
    }
    if folder.base is not None:
        document["base"] = folder.base
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_directory_index(directory: Path) -> DirectoryIndex | None:
    """Read `dtscodec.json`, or return None if there is none; the inverse of `write_directory_index`.

    Raises
    ------
    CheckpointError
        It is not a valid index.
    """
    path = directory / INDEX_NAME
    with read_errors(path):
        if not path.is_file():
            return None
        data = path.read_bytes()
    return parse_directory_index(data, str(path))


def parse_directory_index(data: bytes, where: str) -> DirectoryIndex:
    """Parse `dtscodec.json`; the inverse of `directory_index_text`.

    Raises
    ------
    CheckpointError
        It is not a valid index.
    """
    try:
        fields = Fields(json.loads(data), INDEX_NAME)
        if fields.take("version", int) != 1:
            raise ValueError("expected version 1")
        packs = {task: _listed(item) for task, item in fields.take("packs", dict).items()}
        return DirectoryIndex(packs, fields.take("base", str, None))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: expected an index of packs, got a file with: {error}") from error


def _listed(item: Json) -> ListedPack:
    fields = Fields(item, "a pack")
    figures = fields.take("figures", dict, {})
    if not all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in figures.values()):
        raise ValueError(f"expected numbers as figures, got {figures!r:.80}")
    return ListedPack(fields.take("file", str), fields.take("size", int), fields.take("id", str), figures)


def _listing(pack: ListedPack) -> dict[str, Any]:
    listing = {"file": pack.file, "size": pack.size, "id": pack.id}
    return listing | ({"figures": dict(pack.figures)} if pack.figures else {})


def locate_pack(source: str | os.PathLike[str]) -> Path:
    """Return the path of a pack.

    Parameters
    ----------
    source : path
        A file, or on the Hub ``hf://user/repo[@revision]/NAME``. NAME is the pack's path or its task; a path takes
        precedence; it may be omitted if the repository lists one pack.

    Raises
    ------
    PackNotFoundError
        The Hub does not have it.
    BackendError
        As for `as_path`.
    """
    with pack_errors(cast(Path, source)):
        place = as_path(source)
        # A local path, or a file on the Hub.
        if not isinstance(place, HubPath) or place.is_file():
            return place
        packs = (read_directory_index(cast(Path, place.top)) or DirectoryIndex({})).packs
    # A repository on the Hub that has one pack, or the task of a pack in it.
    if not place.path and len(packs) == 1:
        return cast(Path, place.top / next(iter(packs.values())).file)
    if place.path in packs:
        return cast(Path, place.top / packs[place.path].file)
    tasks = listed(sorted(packs), 10) or "none"
    raise PackNotFoundError(f"{source}: expected the path or the task of a pack, got neither; tasks there: {tasks}")
