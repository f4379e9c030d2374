"""One `.safetensors` file as a checkpoint. No torch."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dtscodec.files.random_access import Bytes, RandomAccessFile
from dtscodec.format.primitives.safetensors_header import read_header
from dtscodec.storage.errors import read_errors
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import is_remote
from dtscodec.storage.remote_file import RemoteFile


class SafetensorsCheckpoint:
    """A `Checkpoint` over one safetensors file, which stays open until `close`.

    Parameters
    ----------
    path : Path
        The file.
    is_directory : bool
        Whether the user named the directory that holds it.
    staging : Path, optional
        Where what is staging of a remote file is kept.
    whole : bool
        Whether a file of the Hub is to go through the client's cache; one that is there already always does.

    Raises
    ------
    CheckpointError
        The file is missing, cut off, or not a sound safetensors file.
    """

    def __init__(
        self, path: Path, is_directory: bool = False, staging: Path | None = None, whole: bool = False
    ) -> None:
        self.location = str(path)
        self.directory: Path | None = path.parent
        self.is_directory = is_directory
        self.weight_files = frozenset({path.name})
        self.aliases: Mapping[str, str] = {}
        self.staging = staging
        self.file = _open(path, staging, whole)
        try:
            with self.file.opened() as stream:
                header = read_header(stream, self.location)
        except BaseException:
            self.file.close()
            raise
        self.metadata: Mapping[str, str] = header.metadata
        self.specs = {name: header.tensors[name].spec for name in sorted(header.tensors)}
        self._offsets = {name: header.data_start + entry.begin for name, entry in header.tensors.items()}

    def read(self, name: str) -> Bytes:
        """The bytes of a tensor, in a fresh buffer: uint8 [nbytes]."""
        return self.file.read(self._offsets[name], self.specs[name].nbytes)

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background."""
        self.file.prefetch(self._offsets[name], self.specs[name].nbytes)

    def signature(self, name: str) -> tuple[int | str, ...] | None:
        """Identity of the file's content now, and the name."""
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


def _open(path: Path, staging: Path | None, whole: bool) -> RandomAccessFile | RemoteFile:
    if isinstance(path, HubPath):
        with read_errors(path):
            cached = path.local() if whole else path.cached()
        if cached is not None:
            return RandomAccessFile(cached)
    return RemoteFile(path, staging) if is_remote(path) else RandomAccessFile(path)
