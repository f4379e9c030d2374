"""One file of `torch.save` as a checkpoint: memory-mapped if it is a zip archive; code in it is never run."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from dtscodec.checkpoints.checkpoint import Signature
from dtscodec.checkpoints.containers.in_memory import MappingCheckpoint, is_tensor
from dtscodec.checkpoints.directories.file_names import usual_stem
from dtscodec.checkpoints.foreign_file import check_not_foreign
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.files.range_reader import Bytes, LocalFile
from dtscodec.storage.hub_path import HubPath
from dtscodec.storage.paths import is_remote
from dtscodec.storage.storage_errors import read_errors

_WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts store the state dict."""

_CONVERT = Remedy("convert it to safetensors where you trust it")
_SAVE_AGAIN = Remedy("download it, or save the model again")


class TorchCheckpoint:
    """A `Checkpoint` over one file that `torch.save` wrote.

    Tensors are views of the memory-mapped file. Files of the old format, which is no zip archive, are read as a whole.

    Parameters
    ----------
    path : Path
        The file. One of the Hub is downloaded into the client's cache; other remote files are refused.

    Raises
    ------
    CheckpointError
        The file is missing, damaged or remote, or contains code or objects other than tensors.
    """

    def __init__(self, path: Path) -> None:
        self.location = str(path)
        local = _local(path)
        try:
            # torch maps the file by itself; this descriptor shows whether it has changed since.
            self._file = LocalFile(local)
        except OSError as error:
            raise CheckpointError(f"{local}: expected a file to read, got '{error.strerror}'") from error
        try:
            self._tensors = MappingCheckpoint(_unwrap(_load(local, self.location), self.location), self.location)
        except BaseException:
            self._file.close()
            check_not_foreign(path)
            raise
        self.directory: Path | None = path.parent
        self.is_directory = False
        self.stem = usual_stem(path.name)
        self.folders: tuple[str, ...] = ()
        self.passed_over: tuple[PassedOverFile, ...] = ()
        self.staging: Path | None = None
        self.weight_files = frozenset({path.name})
        self.metadata: Mapping[str, str] = {}
        self.specs = self._tensors.specs
        self.aliases: Mapping[str, str] = self._tensors.aliases

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor, a read-only view where possible: uint8 [nbytes].

        Raises
        ------
        CheckpointError
            The file has been truncated since it was opened, so that access to the mapping would kill the process.
        """
        if (size := self._file.signature()[2]) < self._file.size:
            raise CheckpointError(f"{self.location}: expected {self._file.size} bytes, got {size}: it was cut off")
        return self._tensors.read(name)

    def prefetch(self, name: str) -> None:
        """Do nothing: the file is mapped or in memory."""

    def signature(self, name: str) -> Signature | None:
        """Return the file's identity, size and time of change as they are now, and the name."""
        return (*self._file.signature(), name)

    def close(self) -> None:
        """Close the file, and release the mapping."""
        self._file.close()
        self._tensors.close()

    def __enter__(self) -> "TorchCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _local(path: Path) -> Path:
    """Return the file on this machine; one of the Hub is in the client's cache then."""
    if isinstance(path, HubPath):
        with read_errors(path):
            return path.local()
    if is_remote(path):
        detail = "expected safetensors, got a file of torch's, which cannot be read by range"
        raise CheckpointError(f"{path}: {detail}", Remedy("download or convert it"))
    return path


def _load(path: Path, where: str) -> object:
    """Return the content of the file, with tensors memory-mapped where possible."""
    import torch

    if path.stat().st_size == 0:
        raise CheckpointError(f"{where}: expected a file of torch.save, got an empty file", _SAVE_AGAIN)
    mapped = _is_plain_zip(path)
    try:
        # With `weights_only`, code in the pickle is refused, not run.
        return torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as e:
        found = re.search(r"GLOBAL (\S+)", str(e))
        got = f"Python objects such as {found[1]}" if found else _first_line(e, "Unpickler error", "Unsupported")
        raise CheckpointError(f"{where}: expected tensors only, got {got}", _CONVERT) from e
    except Exception as e:  # Damaged pickles raise nearly any exception.
        raise CheckpointError(f"{where}: expected a file of torch.save, got {_first_line(e)}", _CONVERT) from e


def _is_plain_zip(path: Path) -> bool:
    """Return whether the file is a zip archive without compression, so that it can be mapped."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _first_line(error: Exception, *marks: str) -> str:
    """Return the first informative line of a message, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for mark in marks for line in lines if mark in line), lines[0]).strip()
    return repr(line if len(line) <= 160 else line[:157] + "...")


def _unwrap(content: object, where: str) -> Mapping[str, Any]:
    """Return the state dict, which may be wrapped in mappings under the usual keys."""
    if isinstance(content, Mapping) and "ds_version" in content:
        detail = "expected a whole checkpoint, got a shard of DeepSpeed"
        raise CheckpointError(f"{where}: {detail}", Remedy("merge its directory with DeepSpeed's zero_to_fp32.py"))
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if is_tensor(content) or not isinstance(content, Mapping):
        raise CheckpointError(f"{where}: expected a mapping of names to tensors, got a {type(content).__name__}")
    return content
