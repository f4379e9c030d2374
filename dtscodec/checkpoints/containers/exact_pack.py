"""A pack that decodes to a checkpoint bit for bit, as a checkpoint. No torch.

It has exact tensors only, such as a compressed base, or a residual layer. The latter needs its own base, which may be
such a pack again: a chain (spec section 15.6).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType

import numpy as np

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile, read_auxiliary_file
from dtscodec.checkpoints.checkpoint import Checkpoint, Signature
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import BaseMismatchError, CheckpointError, FormatError, Remedy
from dtscodec.files.range_reader import Bytes, LocalFile
from dtscodec.format.blocks import Raw, Tie
from dtscodec.format.content_digest import leaf
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.reader import PackReader
from dtscodec.storage.remote_file import RemoteFile

_NAME_CHAIN = Remedy("name its base, and then each pack up to this one, with {base}")

MAX_TENSOR_BYTES = 2**36
"""Most bytes of a tensor that is read: a hostile pack may claim any size (spec section 8, rule L2)."""


class PackedCheckpoint:
    """A `Checkpoint` over a pack that is exact in every decoder. All bytes are verified when they are read.

    Parameters
    ----------
    file : LocalFile or RemoteFile
        The pack; closed by `close`.
    staging : Path, optional
        The folder for ranges of a remote file.
    base : Checkpoint, optional
        The base of a pack with a residual layer; closed by `close`.

    Raises
    ------
    CheckpointError
        The pack is not valid, is not exact, or needs a base and has none.
    """

    def __init__(self, file: LocalFile | RemoteFile, staging: Path | None, base: Checkpoint | None = None) -> None:
        self.location = str(file.path)
        self.is_directory = False
        self.staging = staging
        self._file, self._base = file, base
        try:
            self._reader = PackReader(file, self.location)
            self._check_exact()
        except (FormatError, OSError) as error:
            self._close_all()
            raise _as_checkpoint_error(error, self.location) from error
        except BaseException:
            self._close_all()
            raise
        # Files beside the base belong to the model.
        self.directory: Path | None = file.path.parent if base is None else base.directory
        self.weight_files = frozenset({file.path.name}) if base is None else base.weight_files
        entries = self._reader.index.tensors
        self.metadata: Mapping[str, str] = self._reader.index.metadata
        self.stem, self.folders = self._reader.index.stem, self._reader.index.folders
        self.passed_over: tuple[PassedOverFile, ...] = ()
        self.specs = {entry.name: entry.spec for entry in entries}
        self.aliases = {entry.name: to for entry in entries if (to := entry.tied_to) is not None}

    @property
    def pack_id(self) -> str | None:
        """Id of the pack if it has a residual layer, for packs whose base it gives; None for one of exact tensors."""
        return self._reader.id if self._reader.layer else None

    def _check_exact(self) -> None:
        """Check that the pack is exact, and that it has the base that it needs."""
        reader = self._reader
        if reader.layer is None:
            entries = reader.index.tensors
            if other := [entry.name for entry in entries if not all(isinstance(b, Raw | Tie) for b in entry.blocks)]:
                detail = f"expected a checkpoint, got a pack whose {other[0]!r} is not whole"
                raise CheckpointError(f"{self.location}: {detail}", Remedy("decode it first"))
        if reader.index.base_names():
            if self._base is None:
                detail = "expected a checkpoint, got an exact pack without its base"
                raise CheckpointError(f"{self.location}: {detail}", _NAME_CHAIN)
            try:
                for entry in reader.index.tensors:
                    entry.check_base(self._base.specs, self._base.location)
            except BaseMismatchError as error:
                raise CheckpointError(error.problem, _NAME_CHAIN) from error

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor: uint8 [nbytes], fresh or a read-only view."""
        # A tied tensor is read as the one that it is tied to.
        entry = self._reader.entry(self.aliases.get(name, name))
        if entry.spec.nbytes > MAX_TENSOR_BYTES:
            detail = f"expected tensors of at most {MAX_TENSOR_BYTES} bytes, got {entry.spec}"
            raise CheckpointError(f"{self.location}: {name!r}: {detail}")
        try:
            if self._reader.layer is not None:
                # Each tensor of the base once: otherwise every link would multiply the work of those below it.
                return self._reader.exact(entry.name, cache(self._read_base))
            contents = self._reader.contents(entry.name)
            parts = [content for _, _, content in contents if isinstance(content, np.ndarray)]
        except (FormatError, OSError) as error:
            raise _as_checkpoint_error(error, self.location) from error
        # A tensor of one block is not copied.
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def leaf(self, name: str) -> bytes | None:
        """Return the leaf of a tensor, 32 bytes, as the pack says and `read` checks; None without a residual layer."""
        return None if self._reader.layer is None else self._reader.layer.leaf(name)

    def _read_base(self, name: str) -> tuple[TensorSpec, Bytes]:
        """Return a tensor of the base, checked against the leaf in the pack (rule H2)."""
        assert self._base is not None
        spec, expected = self._base.specs[name], self._reader.leaves[name]
        known = self._base.leaf(name) if isinstance(self._base, PackedCheckpoint) else None
        # The leaf that a pack claims is compared before anything is decoded.
        if known is None or known.startswith(expected):
            data = self._base.read(name)
            known = known or leaf(spec, data)
        if not known.startswith(expected):
            detail = f"expected a leaf of {expected.hex()}, got {known[: len(expected)].hex()}"
            raise CheckpointError(f"{self._base.location}: {name!r}: {detail}", _NAME_CHAIN)
        return spec, data

    def auxiliary_files(self) -> list[AuxiliaryFile]:
        """Return the auxiliary files that travel with the pack."""
        return [read_auxiliary_file(self._reader, entry) for entry in self._reader.index.files]

    def weight_headers(self) -> dict[str, bytes]:
        """Return what the pack stores of weight files; see `dtscodec.checkpoints.weight_headers`."""
        return {} if self._reader.layer is None else self._reader.layer.weight_files()

    def prefetch(self, name: str) -> None:
        """Do nothing: tensors are decompressed when they are read."""

    def signature(self, name: str) -> Signature | None:
        """Return the file's identity, size and time of change as they are now, and the name."""
        return (*self._file.signature(), name)

    def close(self) -> None:
        """Close the file, and the base."""
        self._close_all()

    def _close_all(self) -> None:
        self._file.close()
        if self._base is not None:
            self._base.close()

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
