"""A model directory as a checkpoint: the weights that its framework loads, and those in folders of modules."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType

from dtscodec.checkpoints.checkpoint import Checkpoint, Signature
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import CheckpointError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.weight_files import split_folder


class ModelDirectory:
    """A `Checkpoint` over a directory. Names of tensors in a folder of modules begin with the folder and a slash.

    Parameters
    ----------
    directory : Path
        The directory.
    own : Checkpoint or None
        The weights of the model itself; None if only folders have weights.
    folders : mapping of str to Checkpoint
        Weights of modules, by folder.
    stem : str
        The stem of the model's own weight files; see `dtscodec.format.weight_files.WeightFiles`.
    find_passed_over : callable
        Returns the files that were not read. It is called on first use, since it lists folders.

    Raises
    ------
    CheckpointError
        A tensor of the model has the name of one in a folder.
    """

    def __init__(
        self,
        directory: Path,
        own: Checkpoint | None,
        folders: Mapping[str, Checkpoint],
        stem: str,
        find_passed_over: Callable[[], tuple[PassedOverFile, ...]],
    ) -> None:
        parts = {**({"": own} if own else {}), **folders}
        first = next(iter(parts.values()))
        self.location = own.location if own else str(directory)
        self.directory: Path | None = directory
        self.is_directory = True
        self.stem = stem
        self.folders = tuple(sorted({*folders, *(own.folders if own else ())}))
        self.staging = first.staging
        self.metadata = first.metadata
        self.weight_files = frozenset(
            _within(folder, file) for folder, part in parts.items() for file in part.weight_files
        )
        self._find_passed_over = find_passed_over
        self._stack = ExitStack()
        for part in parts.values():
            self._stack.callback(part.close)
        # The checkpoint that holds each tensor, and the tensor's name there.
        self._places = {_within(folder, name): (part, name) for folder, part in parts.items() for name in part.specs}
        self.specs = {name: part.specs[inner] for name, (part, inner) in sorted(self._places.items())}
        self.aliases = {
            _within(folder, name): _within(folder, to)
            for folder, part in parts.items()
            for name, to in part.aliases.items()
        }
        clash = [name for name in (own.specs if own else ()) if split_folder(name, tuple(folders))[0]]
        if clash:
            raise CheckpointError(f"{directory}: expected {clash[0]!r} in a folder only, got it in {self.location} too")

    @cached_property
    def passed_over(self) -> tuple[PassedOverFile, ...]:
        """Files of the directory that hold weights but were not read."""
        return self._find_passed_over()

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor: uint8 [nbytes]."""
        part, inner = self._places[name]
        return part.read(inner)

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background, as its file does."""
        part, inner = self._places[name]
        part.prefetch(inner)

    def signature(self, name: str) -> Signature | None:
        """Return the identity, size and time of change of the tensor's file as they are now, and the name."""
        part, inner = self._places[name]
        return part.signature(inner)

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def __enter__(self) -> "ModelDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
