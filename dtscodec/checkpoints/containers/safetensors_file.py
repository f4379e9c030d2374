"""One safetensors file as a checkpoint, local or remote. No torch."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dtscodec.checkpoints.checkpoint import Signature
from dtscodec.checkpoints.directories.file_names import usual_stem
from dtscodec.checkpoints.foreign_file import check_not_foreign
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import CheckpointError, DtsError
from dtscodec.files.range_reader import Bytes, LocalFile
from dtscodec.format.primitives.safetensors_header import read_header
from dtscodec.storage.open_file import BY_RANGE, Access, open_file
from dtscodec.storage.remote_file import RemoteFile

SUMMARY = "dtscodec"
"""Key of a pack's metadata (spec section 3.3)."""


class SafetensorsCheckpoint:
    """A `Checkpoint` over one safetensors file, which stays open until `close`.

    Parameters
    ----------
    path : Path
        The file.
    access : Access
        How a remote file is read.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, or not a valid safetensors file.
    """

    def __init__(self, path: Path, access: Access = BY_RANGE) -> None:
        self.location = str(path)
        self.directory: Path | None = path.parent
        self.is_directory = False
        self.stem = usual_stem(path.name)
        self.folders: tuple[str, ...] = ()
        self.passed_over: tuple[PassedOverFile, ...] = ()
        self.weight_files = frozenset({path.name})
        self.aliases: Mapping[str, str] = {}
        self.staging = access.staging
        self.file = _open(path, access)
        try:
            with self.file.opened() as stream:
                header = read_header(stream, self.location)
        except BaseException:
            self.file.close()
            check_not_foreign(path)
            raise
        self.metadata: Mapping[str, str] = header.metadata
        self.specs = {name: header.tensors[name].spec for name in sorted(header.tensors)}
        # The header counts from its own end; ranges count from the start of the file.
        self._offsets = {name: header.data_start + entry.begin for name, entry in header.tensors.items()}

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor, in a fresh buffer: uint8 [nbytes]."""
        return read_range(self.file, self._offsets[name], self.specs[name].nbytes)

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background."""
        self.file.prefetch(self._offsets[name], self.specs[name].nbytes)

    def signature(self, name: str) -> Signature | None:
        """Return the file's identity, size and time of change as they are now, and the name."""
        return (*self.file.signature(), name)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> "SafetensorsCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_pack(metadata: Mapping[str, str]) -> bool:
    """Return whether the metadata of a safetensors file is a pack's.

    >>> is_pack({"dtscodec": "{}"}), is_pack({"format": "pt"})
    (True, False)
    """
    return SUMMARY in metadata


def _open(path: Path, access: Access) -> LocalFile | RemoteFile:
    try:
        return open_file(path, access)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file to read, got '{error.strerror}'") from error


def read_range(file: LocalFile | RemoteFile, offset: int, size: int) -> Bytes:
    """Return a range of a file in a fresh, writable buffer: uint8 [size].

    Parameters
    ----------
    file : LocalFile or RemoteFile
        The file.
    offset, size : int
        In bytes.

    Raises
    ------
    CheckpointError
        The file ends before, or cannot be read.
    """
    try:
        data = file.read_array(offset, size)
    except DtsError:
        raise
    except OSError as error:
        detail = f"expected to read at offset {offset}, got '{error.strerror}'"
        raise CheckpointError(f"{file.path}: {detail}") from error
    if len(data) < size:
        detail = f"expected at least {offset + size} bytes, got {file.signature()[2]}: it was cut off"
        raise CheckpointError(f"{file.path}: {detail}")
    return data
