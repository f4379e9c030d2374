"""A checkpoint of several files with an index (`*.index.json`), in the layout of Hugging Face."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from dtscodec.checkpoints.checkpoint import Checkpoint, Signature
from dtscodec.checkpoints.directories.file_names import stem_of
from dtscodec.checkpoints.lfs_pointer import check_no_pointer
from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.errors import CheckpointError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.primitives.safetensors_header import parse_object
from dtscodec.storage.storage_errors import read_errors


class ShardedCheckpoint:
    """A `Checkpoint` over the shards that an index lists, each open until `close`.

    Parameters
    ----------
    index : Path
        The index. Its shards are in the same directory.
    open_shard : callable
        Takes the path of a shard, and opens it.
    staging : Path, optional
        The folder for ranges of remote files.

    Raises
    ------
    CheckpointError
        The index is invalid, a shard is missing, or they disagree about which shard has a tensor.
    """

    def __init__(self, index: Path, open_shard: Callable[[Path], Checkpoint], staging: Path | None = None) -> None:
        self.location = str(index)
        self.directory: Path | None = index.parent
        self.is_directory = False
        self.stem = stem_of(index.name)
        self.folders: tuple[str, ...] = ()
        self.passed_over: tuple[PassedOverFile, ...] = ()
        self.staging = staging
        weight_map = _read_weight_map(index)
        shards = sorted(set(weight_map.values()))
        self.weight_files = frozenset({index.name, *shards})
        # If a shard is missing or misplaced, those opened before are closed.
        with ExitStack() as stack:
            opened = {name: stack.enter_context(open_shard(index.parent / name)) for name in shards}
            _check_places(weight_map, opened, self.location)
            self._stack = stack.pop_all()
        self._shards = {name: opened[weight_map[name]] for name in sorted(weight_map)}
        self.specs: Mapping[str, TensorSpec] = {name: shard.specs[name] for name, shard in self._shards.items()}
        self.metadata: Mapping[str, str] = {}
        self.aliases: Mapping[str, str] = {}
        for shard in reversed(opened.values()):  # Where shards differ, the first one applies.
            self.metadata = {**self.metadata, **shard.metadata}
            self.aliases = {**self.aliases, **shard.aliases}

    def read(self, name: str) -> Bytes:
        """Return the bytes of a tensor: uint8 [nbytes]."""
        return self._shards[name].read(name)

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background, as its shard does."""
        self._shards[name].prefetch(name)

    def signature(self, name: str) -> Signature | None:
        """Return the identity, size and time of change of the tensor's shard as they are now, and the name."""
        return self._shards[name].signature(name)

    def close(self) -> None:
        """Close all shards."""
        self._stack.close()

    def __enter__(self) -> "ShardedCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_weight_map(index: Path) -> dict[str, str]:
    """Return the names of files by tensor; each file is in the index's own directory."""
    with read_errors(index):
        data = index.read_bytes()
    check_no_pointer(index, data)
    weight_map = parse_object(data, str(index)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: expected an object 'weight_map' of tensors, got {weight_map!r:.60}")
    for name, shard in weight_map.items():
        # An index must not lead out of its directory.
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise CheckpointError(f"{index}: {name!r}: expected a file name without a directory, got {shard!r:.60}")
    return weight_map


def _is_plain_name(name: Any) -> bool:
    return name not in ("", ".", "..") and not any(c in "/\\\0" for c in name)


def _check_places(weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint], where: str) -> None:
    """Check that every tensor is in the shard that the index names, and in no other."""
    for name, shard in weight_map.items():
        if name not in shards[shard].specs:
            raise CheckpointError(f"{where}: expected {name!r} in {shard}, got a file without it")
    for shard, checkpoint in shards.items():
        for name in checkpoint.specs:
            if (listed := weight_map.get(name)) != shard:
                found = f"listed for {listed}" if listed else "not listed"
                raise CheckpointError(f"{where}: expected {name!r} of {shard} to be listed so, got it {found}")
