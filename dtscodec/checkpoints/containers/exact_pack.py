"""A pack that needs no base, as a checkpoint: lossless compression, for instance of a shared base. No torch."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from dtscodec.checkpoints.checkpoint import Signature
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import CheckpointError, FormatError, Remedy
from dtscodec.files.range_reader import Bytes, LocalFile
from dtscodec.format.blocks import Raw, Tie
from dtscodec.format.reader import PackReader
from dtscodec.storage.remote_file import RemoteFile

MAX_TENSOR_BYTES = 2**36
"""Most bytes of a tensor that is read: a hostile pack may claim any size (spec section 8, rule L2)."""


class PackedCheckpoint:
    """A `Checkpoint` over a pack of exact tensors only (spec section 14). All bytes are verified when they are read.

    Parameters
    ----------
    file : LocalFile or RemoteFile
        The pack; closed by `close`.
    staging : Path, optional
        The folder for ranges of a remote file.

    Raises
    ------
    CheckpointError
        The pack is not valid, or needs a base itself.
    """

    def __init__(self, file: LocalFile | RemoteFile, staging: Path | None) -> None:
        self.location = str(file.path)
        self.directory: Path | None = file.path.parent
        self.is_directory = False
        self.weight_files = frozenset({file.path.name})
        self.staging = staging
        self._file = file
        try:
            self._reader = PackReader(file, self.location)
        except (FormatError, OSError) as error:
            file.close()
            raise _as_checkpoint_error(error, self.location) from error
        entries = self._reader.index.tensors
        # Blocks of other kinds need a base.
        if other := [entry.name for entry in entries if not all(isinstance(b, Raw | Tie) for b in entry.blocks)]:
            file.close()
            detail = f"expected a checkpoint, got a pack whose {other[0]!r} is not whole"
            raise CheckpointError(f"{self.location}: {detail}", Remedy("decode it first"))
        self.metadata: Mapping[str, str] = self._reader.index.metadata
        self.stem, self.folders = self._reader.index.stem, self._reader.index.folders
        self.passed_over: tuple[PassedOverFile, ...] = ()
        self.specs = {entry.name: entry.spec for entry in entries}
        self.aliases = {entry.name: to for entry in entries if (to := entry.tied_to) is not None}

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor: uint8 [nbytes], fresh or a read-only view."""
        # A tied tensor is read as the one that it is tied to.
        entry = self._reader.entry(self.aliases.get(name, name))
        if entry.spec.nbytes > MAX_TENSOR_BYTES:
            detail = f"expected tensors of at most {MAX_TENSOR_BYTES} bytes, got {entry.spec}"
            raise CheckpointError(f"{self.location}: {name!r}: {detail}")
        try:
            contents = self._reader.contents(entry.name)
            parts = [content for _, _, content in contents if isinstance(content, np.ndarray)]
        except (FormatError, OSError) as error:
            raise _as_checkpoint_error(error, self.location) from error
        # A tensor of one block is not copied.
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def prefetch(self, name: str) -> None:
        """Do nothing: tensors are decompressed when they are read."""

    def signature(self, name: str) -> Signature | None:
        """Return the file's identity, size and time of change as they are now, and the name."""
        return (*self._file.signature(), name)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> "PackedCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Callers of a checkpoint expect a `CheckpointError`, whatever its container is.
def _as_checkpoint_error(error: FormatError | OSError, location: str) -> CheckpointError:
    if isinstance(error, FormatError):
        return CheckpointError(error.problem, error.remedy)
    return CheckpointError(f"{location}: expected to read it, got '{error.strerror}'")
