"""A directory of packs: `packs/<task>.safetensors`, and `dtscodec.json`, which lists them (spec section 14)."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dtscodec.codec.pack import Pack
from dtscodec.errors import CheckpointError, OutputError
from dtscodec.format.canonical import Json
from dtscodec.format.fields import Fields
from dtscodec.format.index import NamedFile
from dtscodec.format.output_file import output_errors
from dtscodec.remote.failures import read_errors
from dtscodec.remote.place import as_place, is_remote
from dtscodec.remote.upload import new_file

INDEX_NAME = "dtscodec.json"
PACKS = "packs"


@dataclass(frozen=True, slots=True)
class ListedPack:
    """A pack of a directory: its file relative to the directory, size in bytes and id."""

    file: str
    size: int
    id: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What `dtscodec.json` says.

    Parameters
    ----------
    packs : dict
        By task.
    base : str or None
        Path of the base relative to the directory, if it lies within.
    """

    packs: dict[str, ListedPack]
    base: str | None = None

    def __post_init__(self) -> None:
        for path in [pack.file for pack in self.packs.values()] + ([self.base] if self.base else []):
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ValueError(f"expected paths within the directory, got {path!r:.80}")


def write_folder(directory: Path, folder: Folder) -> None:
    """Write `dtscodec.json`; the inverse of `read_folder`."""
    document: dict[str, Json] = {
        "version": 1,
        "packs": {
            task: {"file": pack.file, "size": pack.size, "id": pack.id} for task, pack in sorted(folder.packs.items())
        },
    }
    if folder.base is not None:
        document["base"] = folder.base
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with new_file(directory / INDEX_NAME, force=True) as file:
        file.write(text.encode())


def read_folder(directory: Path) -> Folder | None:
    """Read `dtscodec.json`; None if there is none. The inverse of `write_folder`.

    Raises
    ------
    CheckpointError
        It is not what it should be.
    """
    path = directory / INDEX_NAME
    with read_errors(path):
        if not path.is_file():
            return None
        data = path.read_bytes()
    try:
        fields = Fields(json.loads(data), INDEX_NAME)
        if fields.take("version", int) != 1:
            raise ValueError("expected version 1")
        packs = {task: _listed(item) for task, item in fields.take("packs", dict).items()}
        return Folder(packs, fields.take("base", str, None))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected an index of packs, got a file with: {error}") from error


def _listed(item: Json) -> ListedPack:
    fields = Fields(item, "a pack")
    return ListedPack(fields.take("file", str), fields.take("size", int), fields.take("id", str))


def find_base(pack: Pack) -> Path | None:
    """The base that the index beside a pack names, in its directory or the one above.

    None if there is none, or if the pack needs none: no tensor and no file is the base's.
    """
    needs_one = pack.summary.base is not None or any(isinstance(file, NamedFile) for file in pack.index.files)
    if pack.path is None or not needs_one:
        return None
    beside = Path(os.path.abspath(pack.path)).parent
    for directory in (beside, beside.parent):
        folder = read_folder(directory)
        if folder is not None and folder.base is not None:
            return directory / folder.base
    return None


def pack_path(directory: Path, task: str) -> Path:
    """Where the pack of a task lies."""
    return directory / PACKS / f"{task}.safetensors"


@contextmanager
def open_folder(directory: Path) -> Iterator[None]:
    """A directory that packs can be added to; what was made for it and stays empty is removed again.

    Raises
    ------
    CheckpointError
        It has an index that cannot be read.
    OutputError
        It cannot be made.
    """
    read_folder(directory)
    made: list[Path] = []
    try:
        # Object stores have no directories, and asked for one would make its bucket.
        for path in () if is_remote(directory) else (directory, directory / PACKS):
            if not path.is_dir():
                if path.exists():
                    raise OutputError(f"{path}: expected a directory, got a file; choose another place with -o")
                with output_errors(path):
                    path.mkdir()
                made.append(path)
        yield
    finally:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()


def list_pack(directory: Path, task: str, path: Path, size: int, pack_id: str, base: str | os.PathLike[str]) -> None:
    """Enter a pack into the index of a directory, and the base, if it lies within."""
    folder = read_folder(directory) or Folder({})
    listed = ListedPack(path.relative_to(directory).as_posix(), size, pack_id)
    write_folder(directory, Folder(folder.packs | {task: listed}, _within(directory, as_place(base)) or folder.base))


def _within(directory: Path, place: Path) -> str | None:
    """The path of what lies in a directory, relative to it; None of what lies elsewhere."""
    if is_remote(place) != is_remote(directory):
        return None
    place, directory = place.resolve(), directory.resolve()
    try:
        return place.relative_to(directory).as_posix()
    except ValueError:
        return None
