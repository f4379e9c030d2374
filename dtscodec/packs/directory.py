"""A directory of packs: `packs/<task>.safetensors`, and the index `dtscodec.json` that lists them (spec section 14)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from dtscodec.checkpoints.open import MAX_CHAIN
from dtscodec.errors import BaseMismatchError, OutputError, Remedy
from dtscodec.files.output_file import OTHER_OUTPUT, output_errors
from dtscodec.format.index import CarriedFile
from dtscodec.format.summary import BaseRef
from dtscodec.packs.directory_index import DirectoryIndex, ListedPack, read_directory_index, write_directory_index
from dtscodec.packs.pack import Pack
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import as_path, is_remote

PACKS = "packs"


def find_base(pack: Pack) -> str | list[str] | None:
    """Return the base of a pack, as a path or Hub name; None if the pack needs no base, or none is found.

    The base of a pack that was made against what another pack decodes to is a chain: the path of a base, then those of
    packs (spec section 15.6). They are found by their ids in the index of the pack's directory.

    Otherwise, the order of lookup: a base inside the directory of the pack's index, the base that the pack records, the
    Hub name in the index. The index is that of the pack's directory, of its parent, or of its repository.

    Raises
    ------
    CheckpointError
        The index cannot be read.
    BaseMismatchError
        The index does not list the pack that the base is made of, or the chain is too long.
    """
    reference = pack.summary.base
    if reference is not None and reference.pack is not None:
        return _find_chain(pack, reference.pack)
    if reference is None and all(isinstance(file, CarriedFile) for file in pack.index.files):
        return None
    # In order of preference: a base within a directory, the Hub name that the pack records, the one in an index.
    named = None
    for directory in _around(pack):
        folder = read_directory_index(directory)
        if folder is not None and folder.base is not None:
            if not folder.base.startswith("hf://"):
                return str(directory / folder.base)
            named = named or folder.base
    return remembered_base(reference) or named


def _find_chain(pack: Pack, needed: str | None) -> list[str]:
    """Return the paths of a chain, from its base to the pack of an id."""
    chain: list[str] = []
    directories = _around(pack)
    base: str | list[str] | None = None
    while needed is not None:
        path = _listed_path(directories, needed)
        if path is None or len(chain) == MAX_CHAIN:
            where, detail = str(pack.path or "pack"), f"expected the pack {needed}, whose result is the base, "
            detail += "got none beside it" if path is None else f"got a chain of more than {MAX_CHAIN} packs"
            raise BaseMismatchError("base-tensor", where, detail, "15.6", Remedy("name the chain with {base}"))
        chain.insert(0, str(path))
        with Pack(path) as below:
            reference = below.summary.base
            needed = reference.pack if reference else None
            base = find_base(below) if needed is None else None
    return chain if base is None else [*([base] if isinstance(base, str) else base), *chain]


def _listed_path(directories: Sequence[Path], pack_id: str) -> Path | None:
    for directory in directories:
        folder = read_directory_index(directory)
        for listed in folder.packs.values() if folder else ():
            if listed.id == pack_id:
                return directory / listed.file
    return None


def remembered_base(reference: BaseRef | None) -> str | None:
    """Return the Hub name of the base that a pack records, with the commit if it records one; else None."""
    if reference is None or reference.repo is None:
        return None
    return f"hf://{reference.repo}" + (f"@{reference.revision}" if reference.revision else "")


def _around(pack: Pack) -> tuple[Path, ...]:
    """Return the directories that may have a pack's index: its own, the parent, on the Hub the repository's top."""
    if pack.path is None:
        return ()
    # An absolute path, so that a relative one has a parent, too.
    beside = pack.path.parent if is_remote(pack.path) else Path(os.path.abspath(pack.path)).parent
    top = (beside.top,) if isinstance(beside, HubPath) else ()
    return tuple(dict.fromkeys((beside, beside.parent, *top)))


def pack_path(directory: Path, task: str) -> Path:
    """Return the path of the pack of a task."""
    return directory / PACKS / f"{task}.safetensors"


@contextmanager
def open_pack_directory(directory: Path) -> Iterator[None]:
    """Create a directory for packs, as a context. At exit, directories that it created are removed if they are empty.

    Raises
    ------
    CheckpointError
        It has an index that cannot be read.
    OutputError
        It cannot be created.
    """
    # A damaged index is reported before any pack is written.
    read_directory_index(directory)
    made: list[Path] = []
    try:
        # Object stores have no directories; creating one there would create a bucket.
        for path in () if is_remote(directory) else (directory, directory / PACKS):
            if not path.is_dir():
                if path.exists():
                    raise OutputError(f"{path}: expected a directory, got a file", OTHER_OUTPUT)
                with output_errors(path):
                    path.mkdir()
                made.append(path)
        yield
    finally:
        # Deepest first; a directory that is not empty stays.
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()


def list_pack(
    directory: Path,
    task: str,
    path: Path,
    size: int,
    pack_id: str,
    base: str | os.PathLike[str] | None,
    figures: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Add a pack to the index of a directory.

    Parameters
    ----------
    directory : Path
        The directory.
    task : str
        The pack's task; an entry of the same task is replaced.
    path : Path
        The pack, inside the directory.
    size : int
        Its length in bytes.
    pack_id : str
        Its id, 64 hex digits.
    base : path or None
        Its base; recorded if it lies inside the directory.
    figures : mapping of str to float
        Figures about its quality.
    """
    folder = read_directory_index(directory) or DirectoryIndex({})
    listed = ListedPack(path.relative_to(directory).as_posix(), size, pack_id, dict(figures))
    within = None if base is None else _within(directory, as_path(base))
    # A base outside the directory does not replace the one that the index names.
    write_directory_index(directory, DirectoryIndex(folder.packs | {task: listed}, within or folder.base))


def _within(directory: Path, place: Path) -> str | None:
    """Return a path relative to a directory; None if it lies outside."""
    if isinstance(place, HubPath) or is_remote(place) != is_remote(directory):
        return None
    place, directory = place.resolve(), directory.resolve()
    try:
        return place.relative_to(directory).as_posix()
    except ValueError:
        return None
