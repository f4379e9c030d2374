"""Auxiliary files and names of weight files in the index <-> canonical JSON (spec sections 4.5 and 4.6)."""

from pathlib import PurePosixPath

from dtscodec.errors import FormatError, assert_never
from dtscodec.format.dtypes import MAX_NAME_BYTES
from dtscodec.format.index import CarriedFile, ChangedFile, FileEntry, Index, NamedFile
from dtscodec.format.naming import (
    MAX_CHANGED_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES,
    check_names,
    utf8,
    valid_file_name,
)
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.primitives.hex_digest import is_hex_digest
from dtscodec.format.weight_files import is_valid_folder, is_valid_stem, split_folder


def file_json(entry: FileEntry) -> Json:
    """Return the JSON of an auxiliary file's entry; the inverse of `parse_file`."""
    match entry:
        case CarriedFile(name, size, stored):
            return {"name": name, "size": size, "stored": stored}
        case NamedFile(name, digest):
            return {"name": name, "digest": digest}
        case ChangedFile(name, size, stored, digest):
            return {"name": name, "size": size, "stored": stored, "digest": digest}
        case _:
            assert_never(entry)


def parse_file(item: dict[str, Json]) -> FileEntry:
    """Parse and check the entry of an auxiliary file; the inverse of `file_json`.

    Parameters
    ----------
    item : dict
        The JSON object.

    Raises
    ------
    FormatError
        With reason ``file`` or (an `UnsupportedError`) ``unknown``.
    ValueError
        A key is missing, or has another value than the spec allows.
    """
    fields = Fields(item, "a file")
    name = fields.take("name", str)
    if not valid_file_name(name):
        raise FormatError("file", "files", f"expected a file that may travel, got {name!r:.80}", "4.5")
    # Named by a digest, carried with its sizes, or changed, which has both.
    digest = _take_digest(fields, name) if "digest" in fields else None
    if digest is not None and "size" not in fields and "stored" not in fields:
        fields.done("4.5")
        return NamedFile(name, digest)
    size, stored = fields.take("size", int), fields.take("stored", int)
    fields.done("4.5")
    if size < 0 or stored < 0:
        raise ValueError(f"expected sizes of at least 0 for {name}, got {size}, {stored}")
    # Rule F2: a frame is never longer than the file itself.
    limit = MAX_FILE_BYTES if digest is None else MAX_CHANGED_BYTES
    if not stored <= size <= limit:
        detail = f"expected a size of at most {limit} bytes and no more bytes stored, got {size}, {stored}"
        raise FormatError("file", name, detail, "4.5")
    return CarriedFile(name, size, stored) if digest is None else ChangedFile(name, size, stored, digest)


def _take_digest(fields: Fields, name: str) -> str:
    digest = fields.take("digest", str)
    if not is_hex_digest(digest):
        raise ValueError(f"expected a digest of 64 hex digits for {name}, got {digest!r:.80}")
    return digest


def check_files(index: Index) -> None:
    """Check the entries of auxiliary files together: limits, order, no file in place of a folder (rules T3, I4, F1)."""
    if len(index.files) > MAX_FILES:
        raise OverflowError(f"expected at most {MAX_FILES} files, got {len(index.files)}")
    if sum(entry.size for entry in index.files if not isinstance(entry, NamedFile)) > MAX_FILE_BYTES:
        raise OverflowError(f"expected at most {MAX_FILE_BYTES} bytes of files in all, got more")
    if any(len(utf8(entry.name)) > MAX_NAME_BYTES for entry in index.files):
        raise OverflowError(f"expected names of files of at most {MAX_NAME_BYTES} bytes, got a longer one")
    check_names([entry.name for entry in index.files])
    # No file may have the name of another's directory.
    names = {entry.name for entry in index.files}
    for name in sorted(names):
        for folder in PurePosixPath(name).parents:
            if str(folder) in names:
                raise FormatError("file", name, f"expected a folder for {folder}, got a file of that name", "4.5")


def check_weight_files(index: Index) -> None:
    """Check the names of weight files and of folders, and that each folder has a tensor (rule F3)."""
    if not is_valid_stem(index.stem):
        raise FormatError("file", "stem", f"expected a component of a file's name, got {index.stem!r:.80}", "4.6")
    if not index.folders:
        return
    check_names(list(index.folders))
    for folder in index.folders:
        if not is_valid_folder(folder):
            raise FormatError("file", "folders", f"expected a relative path, got {folder!r:.80}", "4.6")
    within = [split_folder(entry.name, index.folders) for entry in index.tensors]
    if empty := set(index.folders) - {folder for folder, _ in within}:
        raise FormatError("file", "folders", f"expected a tensor in {min(empty)!r:.80}, got none", "4.6")
    if odd := [folder for folder, name in within if folder is not None and name in ("", "__metadata__")]:
        raise FormatError("file", "folders", f"expected names of tensors in {odd[0]!r:.80}, got another", "4.6")
