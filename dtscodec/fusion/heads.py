"""The head of the unseen task, from a checkpoint or a pack."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile, Carried, Named
from dtscodec.checkpoints.auxiliary_files import collect_files
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.containers.safetensors_file import is_pack
from dtscodec.checkpoints.open import open_checkpoint, weight_paths
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.config import PAPER_HEADS, is_exact
from dtscodec.errors import ConfigError, FormatError, PackNotFoundError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import NamedFile
from dtscodec.fusion.source_packs import SourcePacks
from dtscodec.packs.pack import Pack

HeadSource: TypeAlias = "Source | Checkpoint | Pack"


class Head:
    """The head of a task: the tensors of a checkpoint or pack that are the task's own.

    These are the tensors that the source packs store without the base, and those with names of heads. Other tensors are
    ignored, so that the source may be a whole model.

    Parameters
    ----------
    source : path, mapping of tensors, Checkpoint or Pack
        The checkpoint or pack.
    sources : SourcePacks
        The packs of the fusion.
    stack : ExitStack
        Closes the files that are opened here.

    Raises
    ------
    CheckpointError, FormatError
        It cannot be read.
    ConfigError
        It has no head.
    """

    def __init__(self, source: HeadSource, sources: SourcePacks, stack: ExitStack) -> None:
        self._sources = sources
        self._opened = _open(source, stack)
        if not self.names:
            wanted = ", ".join([name for name in sources.names if is_head(name) or sources.is_own(name)][:3])
            detail = f"expected a tensor that the packs store without the base ({wanted or 'they have none'}), got none"
            raise ConfigError(f"{self.location}: {detail}")

    @property
    def location(self) -> str:
        """Name of the checkpoint or pack, for messages."""
        opened = self._opened
        return str(opened.path or "pack") if isinstance(opened, Pack) else opened.location

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtypes and shapes of all tensors of the checkpoint or pack."""
        opened = self._opened
        return {name: opened.spec(name) for name in opened.keys()} if isinstance(opened, Pack) else opened.specs  # noqa: SIM118

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the head's tensors."""
        return frozenset(name for name in self.specs if is_head(name) or self._is_own(name))

    def _is_own(self, name: str) -> bool:
        sources = self._sources
        if not any(name in entries for entries in sources.entries) or not sources.is_own(name):
            return False
        if not self._is_whole:
            return True
        # Packs may store exactly a tensor that the base has; in a whole model that tensor is not part of the head.
        base = sources.needed_base(f"{name!r} is stored exactly, and may be the base's or a head")
        counterpart = base.specs.get(sources.counterpart(name))
        return counterpart is None or counterpart.shape != self.specs[name].shape

    @cached_property
    def _is_whole(self) -> bool:
        """True if the checkpoint has tensors that packs store relative to the base, so that it is more than a head."""
        known = set().union(*self._sources.entries)
        return any(name in known and not is_head(name) and not self._sources.is_own(name) for name in self.specs)

    def read(self, name: str) -> StoredTensor:
        """Read a tensor.

        Parameters
        ----------
        name : str
            One of `names`.

        Raises
        ------
        BaseMismatchError
            It is stored as a delta in a pack, and the base is missing.
        """
        if isinstance(self._opened, Pack):
            return self._sources.stored(self._opened, name, f"{name!r} of {self.location} is stored as a delta from it")
        return StoredTensor(name, self.specs[name], self._opened.read(name))

    def paths(self, out: Path) -> Iterator[Path]:
        """Yield the files that are read, which must not be replaced."""
        opened = self._opened
        if not isinstance(opened, Pack):
            yield from weight_paths(out, opened)
        elif opened.path:
            yield opened.path

    def files(self) -> list[AuxiliaryFile]:
        """Return the auxiliary files of its directory or pack, names ascending; none for a single file."""
        opened = self._opened
        if isinstance(opened, Pack):
            return opened.auxiliary_files()
        if not opened.is_directory:
            return []
        named = {(file.name, file.digest) for pack in self._sources.packs for file in _named(pack)}
        found = collect_files(opened.directory, None, opened.weight_files)
        return [_as_named(file, named) if isinstance(file, Carried) else file for file in found]


def is_head(name: str) -> bool:
    """Return whether a tensor has the name of a head."""
    return is_exact(name, PAPER_HEADS)


def _named(pack: Pack) -> Sequence[NamedFile]:
    return [file for file in pack.index.files if isinstance(file, NamedFile)]


def _as_named(file: Carried, named: set[tuple[str, str]]) -> AuxiliaryFile:
    """Return a file by name and digest only, if a source pack says that it lies beside the base."""
    digest = hashlib.sha256(file.data).hexdigest()
    return Named(file.name, digest) if (file.name, digest) in named else file


def _open(source: HeadSource, stack: ExitStack) -> "Checkpoint | Pack":
    if isinstance(source, Pack):
        return source
    # A checkpoint that the caller opened, and closes.
    if not isinstance(source, (str, os.PathLike, Mapping, Sequence)):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return stack.enter_context(open_checkpoint(source))
    # Packs and checkpoints may both be safetensors files: try one, then the other.
    try:
        return stack.enter_context(Pack(source))
    except (FormatError, PackNotFoundError) as error:
        checkpoint = stack.enter_context(open_checkpoint(source))
        if is_pack(checkpoint.metadata):  # It is a pack after all, but damaged.
            raise error
        return checkpoint
