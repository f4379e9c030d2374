"""One auxiliary file of a fine-tune, as a pack stores it: its content, a name, or a change (spec section 4.5)."""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.errors import assert_never
from dtscodec.format.index import CarriedFile, ChangedFile, FileEntry, NamedFile
from dtscodec.format.naming import MAX_CHANGED_BYTES, MAX_FILE_BYTES, MIN_PREFIX_BYTES, valid_file_name
from dtscodec.format.primitives.hex_digest import is_hex_digest
from dtscodec.format.reader import PackReader
from dtscodec.format.stored_files import check_change, compress_change, compress_file, decompress_change
from dtscodec.format.writer import PackWriter


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
        return CarriedFile(self.name, len(self.data), len(compress_file(self.data)))

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
        _check_digest(self.name, self.digest)

    @property
    def entry(self) -> NamedFile:
        """The entry in a pack's index."""
        return NamedFile(self.name, self.digest)

    def add_to(self, writer: PackWriter) -> None:
        """Add the file to a pack."""
        writer.name_file(self.name, self.digest)


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that the pack holds as a change of the base's file of the same name.

    It goes from pack to pack without the base: `frame` is copied.

    Parameters
    ----------
    name : str
        Path relative to the directories of the checkpoint and of the base.
    size : int
        Length of the file in bytes.
    frame : bytes
        The change: a zstd frame, with the base's file as prefix.
    digest : str
        SHA-256 of the base's file, 64 hex digits.

    Raises
    ------
    ValueError
        The name, size or digest is not valid.
    FormatError
        The frame is not one of that size.
    """

    name: str
    size: int
    frame: bytes
    digest: str

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_digest(self.name, self.digest)
        if self.size > MAX_CHANGED_BYTES:
            raise ValueError(f"{self.name}: expected at most {MAX_CHANGED_BYTES} bytes, got {self.size}")
        check_change(self.frame, self.size, self.name)

    @classmethod
    def of(cls, name: str, data: bytes, prefix: bytes) -> "Changed":
        """Return a file as a change of another; the inverse of `content`.

        Parameters
        ----------
        name : str
            Its name.
        data : bytes
            Its content.
        prefix : bytes
            The base's file of that name. `can_be_changed` returns whether both are of a size that is allowed.
        """
        return cls(name, len(data), compress_change(data, prefix), hashlib.sha256(prefix).hexdigest())

    def content(self, prefix: bytes) -> bytes:
        """Return the content of the file; the inverse of `of`.

        Parameters
        ----------
        prefix : bytes
            The base's file, of this digest.

        Raises
        ------
        FormatError
            The frame is damaged (rule F2).
        """
        return decompress_change(self.frame, self.size, prefix, self.name)

    @property
    def entry(self) -> ChangedFile:
        """The entry in a pack's index."""
        return ChangedFile(self.name, self.size, len(self.frame), self.digest)

    def add_to(self, writer: PackWriter) -> None:
        """Add the file to a pack."""
        writer.change_file(self.name, self.size, self.frame, self.digest)


AuxiliaryFile: TypeAlias = Carried | Named | Changed


def read_auxiliary_file(reader: PackReader, entry: FileEntry) -> AuxiliaryFile:
    """Return an auxiliary file of a pack; the inverse of `add_to`.

    Parameters
    ----------
    reader : PackReader
        The pack.
    entry : FileEntry
        Its entry in the index.

    Raises
    ------
    FormatError
        The file is damaged (rules D3 and F2).
    """
    match entry:
        case CarriedFile():
            return Carried(entry.name, reader.file(entry))
        case NamedFile():
            return Named(entry.name, entry.digest)
        case ChangedFile():
            return Changed(entry.name, entry.size, reader.change(entry), entry.digest)
        case _:
            assert_never(entry)


def can_be_changed(size: int, prefix_size: int) -> bool:
    """Return whether a file may be stored as a change of another, by their sizes in bytes (rules F2 and F4).

    >>> can_be_changed(3_500_000, 3_500_000), can_be_changed(100, 7), can_be_changed(2**26 + 1, 100)
    (True, False, False)
    """
    return size <= MAX_CHANGED_BYTES and MIN_PREFIX_BYTES <= prefix_size <= MAX_CHANGED_BYTES


def _check_name(name: str) -> None:
    if not valid_file_name(name):
        raise ValueError(f"expected the name of a small file (F1), got {name!r}")


def _check_digest(name: str, digest: str) -> None:
    if not is_hex_digest(digest):
        raise ValueError(f"{name}: expected 64 hex digits, got {digest!r}")
