"""Auxiliary files of a fine-tune, such as its configuration: into a pack and back (spec section 4.5)."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile, Carried, Changed, Named, can_be_changed
from dtscodec.checkpoints.directories.file_names import ADAPTER_CONFIG
from dtscodec.checkpoints.directories.module_folders import module_folders
from dtscodec.checkpoints.lfs_pointer import check_no_pointer
from dtscodec.errors import BaseMismatchError, CheckpointError, Remedy, assert_never
from dtscodec.format.naming import MAX_CHANGED_BYTES, MAX_FILE_BYTES, MAX_FILES, MIN_PREFIX_BYTES, valid_file_name
from dtscodec.storage.listing import list_directory
from dtscodec.storage.storage_errors import read_errors

_OF_TRAINING = re.compile(r"trainer_state\.json|training_args.*|optimizer.*|(.*_)?all_results\.json|.*_results\.json")
"""Files that a training run leaves behind, which are not collected."""

_MODULE = re.compile(r"[0-9]+_[^/]*")
"""Directories of modules, as sentence-transformers names them: `1_Pooling`. Those in `modules.json` may have others."""

MIN_SAVING = 1024
"""Bytes that a change must save. A file that is stored as one cannot be restored without the base's."""

_NO_FILES = {"files": "False"}
_REMOVE_FILE = Remedy("remove it, or leave files out with {files}", _NO_FILES)
_RESTORE_FILE = Remedy("put it there, or leave files out with {files}", _NO_FILES)
_BASE_DIRECTORY = Remedy("name the base's directory ({base}), or leave files out with {files}", _NO_FILES)
_BASE_FILE = Remedy("restore the base's own, or leave files out with {files}", _NO_FILES)


def collect_files(fine_dir: Path | None, base_dir: Path | None, skip: frozenset[str]) -> list[AuxiliaryFile]:
    """Collect the auxiliary files of a fine-tune; `restore_files` is the inverse.

    A file that equals the base's file of the same name is stored by name and digest only. JSON files are compared as
    parsed, others by their bytes. Where JSON is equal but formatted differently, the base's file is restored. A file
    that differs is stored as a change of the base's, if that saves `MIN_SAVING` bytes.

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
    list of Carried, Named and Changed
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
    files : iterable of Carried, Named and Changed
        The files of a pack.
    base_dir : Path or None
        The base's directory, if it has one.

    Raises
    ------
    BaseMismatchError
        A file that is named or changed is missing in the base's directory, or has other content there (rule F4).
    CheckpointError
        The base's file cannot be read.
    FormatError
        A change is damaged (rule F2).
    """
    return {file.name: _restore(file, base_dir) for file in files}


def _restore(file: AuxiliaryFile, base_dir: Path | None) -> bytes:
    match file:
        case Carried():
            return file.data
        case Named():
            return _base_file(file, base_dir)
        case Changed():
            return file.content(_base_file(file, base_dir))
        case _:
            assert_never(file)


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
    carried = Carried(name, data)
    if base_dir is None or not _is_file(base_dir / name):
        return carried
    other = _read(base_dir / name)
    if _same_content(name, data, other):
        # The digest of the base's file, since that is the one restored; equal JSON may have other bytes.
        return Named(name, hashlib.sha256(other).hexdigest())
    if len(data) < MIN_SAVING or not can_be_changed(len(data), len(other)):
        return carried
    changed = Changed.of(name, data, other)
    return changed if len(changed.frame) + MIN_SAVING <= carried.entry.stored else carried


def _same_content(name: str, a: bytes, b: bytes) -> bool:
    if a == b or not name.endswith(".json"):
        return a == b
    try:
        # As text, since Python finds 1, 1.0 and true equal.
        return json.dumps(json.loads(a), sort_keys=True) == json.dumps(json.loads(b), sort_keys=True)
    except (ValueError, RecursionError):
        return False


def _base_file(file: Named | Changed, base_dir: Path | None) -> bytes:
    """Return the base's file that a file is named or changed from, which must have its digest (rule F4)."""
    if base_dir is None:
        detail = "expected this file beside the base, got a base without a directory"
        raise BaseMismatchError("base-file", file.name, detail, "4.5", _BASE_DIRECTORY)
    path = base_dir / file.name
    if not _is_file(path):
        detail = "expected this file beside the base, got none"
        raise BaseMismatchError("base-file", str(path), detail, "4.5", _RESTORE_FILE)
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != file.digest:
        detail = f"expected a file of SHA-256 {file.digest}, got {found}"
        raise BaseMismatchError("base-file", str(path), detail, "4.5", _BASE_FILE)
    if isinstance(file, Changed) and not can_be_changed(file.size, len(data)):
        detail = f"expected a file of {MIN_PREFIX_BYTES} to {MAX_CHANGED_BYTES} bytes, got {len(data)}"
        raise BaseMismatchError("base-file", str(path), detail, "4.5")
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
