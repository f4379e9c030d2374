"""Auxiliary files of a fine-tune, such as its configuration: into a pack and back (spec section 4.5)."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dtscodec.checkpoints.directories.file_names import ADAPTER_CONFIG
from dtscodec.checkpoints.directories.module_folders import module_folders
from dtscodec.checkpoints.lfs_pointer import check_no_pointer
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.format.index import CarriedFile, NamedFile
from dtscodec.format.naming import MAX_FILE_BYTES, MAX_FILES, valid_file_name
from dtscodec.format.writer import PackWriter, carried_entry
from dtscodec.storage.listing import list_directory
from dtscodec.storage.storage_errors import read_errors

_OF_TRAINING = re.compile(r"trainer_state\.json|training_args.*|optimizer.*|(.*_)?all_results\.json|.*_results\.json")
"""Files that a training run leaves behind, which are not collected."""

_MODULE = re.compile(r"[0-9]+_[^/]*")
"""Directories of modules, as sentence-transformers names them: `1_Pooling`. Those in `modules.json` may have others."""

_NO_FILES = {"files": "False"}
_REMOVE_FILE = Remedy("remove it, or leave files out with {files}", _NO_FILES)
_RESTORE_FILE = Remedy("put it there, or leave files out with {files}", _NO_FILES)


@dataclass(frozen=True, slots=True)
class Carried:
    """A file whose content the pack holds.

    Parameters
    ----------
    name : str
        Path relative to the checkpoint's directory.
    data : bytes
        The content.
    """

    name: str
    data: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.data) > MAX_FILE_BYTES:
            raise ValueError(f"{self.name}: expected at most {MAX_FILE_BYTES} bytes, got {len(self.data)}")

    @property
    def entry(self) -> CarriedFile:
        """The entry in a pack's index."""
        return carried_entry(self.name, self.data)

    def add_to(self, writer: PackWriter) -> None:
        """Add the file to a pack."""
        writer.carry_file(self.name, self.data)


@dataclass(frozen=True, slots=True)
class Named:
    """A file that the pack refers to in the base's directory, by name and digest.

    Parameters
    ----------
    name : str
        Path relative to the base's directory.
    digest : str
        SHA-256 of the content, 64 hex digits.
    """

    name: str
    digest: str

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not re.fullmatch("[0-9a-f]{64}", self.digest):
            raise ValueError(f"{self.name}: expected 64 hex digits, got {self.digest!r}")

    @property
    def entry(self) -> NamedFile:
        """The entry in a pack's index."""
        return NamedFile(self.name, self.digest)

    def add_to(self, writer: PackWriter) -> None:
        """Add the file to a pack."""
        writer.name_file(self.name, self.digest)


AuxiliaryFile = Carried | Named


def collect_files(fine_dir: Path | None, base_dir: Path | None, skip: frozenset[str]) -> list[AuxiliaryFile]:
    """Collect the auxiliary files of a fine-tune; `restore_files` is the inverse.

    A file that equals the base's file of the same name is stored by name and digest only. JSON files are compared as
    parsed, others by their bytes. Where JSON is equal but formatted differently, the base's file is restored.

    Parameters
    ----------
    fine_dir : Path or None
        The fine-tune's directory; None for a fine-tune without one, which has no files.
    base_dir : Path or None
        The base's directory, if it has one.
    skip : frozenset of str
        Names to leave out: those of weight files.

    Returns
    -------
    list of Carried and Named
        Names ascending.

    Raises
    ------
    CheckpointError
        A file cannot be read, or is too large.
    """
    if fine_dir is None:
        return []
    names = sorted(name for name in _candidates(fine_dir) if name not in skip)
    if len(names) > MAX_FILES:
        raise CheckpointError(f"{fine_dir}: expected at most {MAX_FILES} small files, got {len(names)}")
    return [_auxiliary_file(name, fine_dir, base_dir) for name in names]


def restore_files(files: Iterable[AuxiliaryFile], base_dir: Path | None) -> dict[str, bytes]:
    """Return the files' contents by name; the inverse of `collect_files`.

    Parameters
    ----------
    files : iterable of Carried and Named
        The files of a pack.
    base_dir : Path or None
        The base's directory, if it has one.

    Raises
    ------
    CheckpointError
        A named file is missing in the base's directory, or has other content.
    """
    return {file.name: file.data if isinstance(file, Carried) else _read_named(file, base_dir) for file in files}


def _candidates(directory: Path) -> list[str]:
    with read_errors(directory):
        listing = list_directory(directory, is_complete=True)
        # Modules have configurations of their own; those that are listed may have tokenizers, too.
        modules = module_folders(directory, listing)
        named = [folder for folder in listing.folders if _MODULE.fullmatch(folder) and folder not in modules]
        inner = [f"{folder}/{name}" for folder in modules for name in _files_in(directory / folder)]
        inner += [f"{d}/{name}" for d in named for name in _files_in(directory / d) if name.endswith(".json")]
    return [
        name for name in {*listing.files, *inner} if valid_file_name(name) and not _is_excluded(name.split("/")[-1])
    ]


def _files_in(folder: Path) -> tuple[str, ...]:
    return list_directory(folder, is_complete=True).files if folder.is_dir() else ()


def _is_excluded(name: str) -> bool:
    """Return whether a file is of the training, or is the configuration of an adapter, whose weights do not travel."""
    return name == ADAPTER_CONFIG or bool(_OF_TRAINING.fullmatch(name))


def _auxiliary_file(name: str, fine_dir: Path, base_dir: Path | None) -> AuxiliaryFile:
    data = _read(fine_dir / name)
    if base_dir is not None and _is_file(base_dir / name):
        other = _read(base_dir / name)
        if _same_content(name, data, other):
            # The digest of the base's file, since that is the one restored; equal JSON may have other bytes.
            return Named(name, hashlib.sha256(other).hexdigest())
    return Carried(name, data)


def _same_content(name: str, a: bytes, b: bytes) -> bool:
    if a == b or not name.endswith(".json"):
        return a == b
    try:
        # As text, since Python finds 1, 1.0 and true equal.
        return json.dumps(json.loads(a), sort_keys=True) == json.dumps(json.loads(b), sort_keys=True)
    except (ValueError, RecursionError):
        return False


def _read_named(file: Named, base_dir: Path | None) -> bytes:
    if base_dir is None:
        raise CheckpointError(
            f"{file.name}: expected this file beside the base, got a base without a directory",
            Remedy("name the base's directory ({base}), or leave files out with {files}", _NO_FILES),
        )
    path = base_dir / file.name
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != file.digest:
        raise CheckpointError(
            f"{path}: expected a file of SHA-256 {file.digest}, got {found}",
            Remedy("restore the base's own, or leave files out with {files}", _NO_FILES),
        )
    return data


def _read(path: Path) -> bytes:
    with read_errors(path, _RESTORE_FILE):
        # Before reading, since the file may be of any size.
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise CheckpointError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}", _REMOVE_FILE)
        data = path.read_bytes()
    check_no_pointer(path, data)
    return data


def _is_file(path: Path) -> bool:
    with read_errors(path):
        return path.is_file()


def _check_name(name: str) -> None:
    if not valid_file_name(name):
        raise ValueError(f"expected the name of a small file (F1), got {name!r}")
