"""Opening a checkpoint of any kind: a model directory, an index with its shards, one file, or tensors in memory."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, cast

from dtscodec.checkpoints.checkpoint import Checkpoint, Plain, Source
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.checkpoints.containers.in_memory import MappingCheckpoint
from dtscodec.checkpoints.containers.safetensors_file import SafetensorsCheckpoint, is_pack
from dtscodec.checkpoints.containers.sharded import ShardedCheckpoint
from dtscodec.checkpoints.containers.torch_file import TorchCheckpoint
from dtscodec.checkpoints.directories.file_names import TORCH_ENDINGS
from dtscodec.checkpoints.directories.open_directory import open_directory
from dtscodec.errors import CheckpointError, Remedy, assert_never
from dtscodec.format.naming import is_shard_index
from dtscodec.storage.open_file import BY_RANGE, Access, open_file
from dtscodec.storage.paths import as_path, is_remote
from dtscodec.storage.storage_errors import read_errors

MAX_CHAIN = 64
"""Most packs of a chain."""

Container: TypeAlias = Literal["index", "torch", "safetensors"]
"""Kinds of file. A pack of exact tensors is a safetensors file with metadata of its own."""


def open_checkpoint(source: Source, access: Access = BY_RANGE) -> Checkpoint:
    """Open a checkpoint of any kind.

    Parameters
    ----------
    source : path or mapping
        A `.safetensors` file, plain or a pack that needs no base; a `.bin`, `.pt` or `.pth` file of `torch.save`; an
        index (`*.index.json`); a model directory; or tensors in memory. Other files are recognized by their first
        bytes. Of a directory those weights are read that its framework loads, and those in folders of modules;
        `passed_over` of the result lists the others. `hf://user/repo[@revision]` is a repository of the Hub, and names
        with a scheme that fsspec knows, as `s3://bucket/model`, are those of safetensors files in remote storage.
    access : Access
        How remote files are read.

    Returns
    -------
    Checkpoint
        To be closed by the caller.

    Raises
    ------
    CheckpointError
        There is no checkpoint of that name, or it is unsound.
    BackendError
        A package for its storage is not installed.

    >>> import numpy as np
    >>> with open_checkpoint({"w": np.zeros((2, 3), np.float32)}) as checkpoint:
    ...     print(checkpoint.specs["w"], checkpoint.read("w").size)
    F32 [2, 3] 24
    """
    if isinstance(source, Mapping):
        return MappingCheckpoint(source)
    # A path in remote storage is no sequence, and not always an `os.PathLike`.
    if isinstance(source, Sequence) and not isinstance(source, str):
        return _open_chain(source, access)
    with read_errors(cast(Path, source)):
        path = as_path(source)
        if path.is_dir():
            return open_directory(path, partial(_open_container, access))
        _check_file(path)
        # An index opens its directory.
        if _container_of(path) == "index":
            return open_directory(path.parent, partial(_open_container, access), chosen=path.name)
        return _open_container(access, path)


def as_checkpoint(source: "Source | Checkpoint", access: Access = BY_RANGE) -> AbstractContextManager[Checkpoint]:
    """Return a context in which a checkpoint is open; one that is open already remains its owner's to close.

    Parameters
    ----------
    source : path, mapping or Checkpoint
        The checkpoint.
    access : Access
        How remote files are read.

    Raises
    ------
    CheckpointError, BackendError
        As for `open_checkpoint`.
    """
    if isinstance(source, (str, os.PathLike, Mapping, Sequence)):
        return open_checkpoint(source, access)
    return nullcontext(source)


def weight_paths(out: Path, *checkpoints: Checkpoint) -> Iterator[Path]:
    """Yield the files that hold the tensors of some checkpoints, so that an output does not replace them.

    Parameters
    ----------
    out : Path
        The output. Only files are yielded that lie where it does: on this machine, or in remote storage.
    *checkpoints : Checkpoint
        The inputs.
    """
    for checkpoint in checkpoints:
        if checkpoint.directory is not None and is_remote(checkpoint.directory) == is_remote(out):
            yield from (checkpoint.directory / name for name in checkpoint.weight_files)


def _open_chain(paths: Sequence[Plain], access: Access) -> Checkpoint:
    """Open a checkpoint, and on it the exact packs of a chain, each against what the one before decodes to."""
    if not 0 < len(paths) <= MAX_CHAIN + 1:
        raise CheckpointError(f"expected a base and at most {MAX_CHAIN} packs on it, got {len(paths)} paths")
    opened = open_checkpoint(paths[0], access)
    for path in paths[1:]:
        if not isinstance(path, (str, os.PathLike)):
            opened.close()
            raise CheckpointError("expected the paths of the packs of a chain, got tensors in memory")
        path = as_path(path)
        # If a pack cannot be opened, it closes its base.
        with closing_on_error(opened), read_errors(path):
            _check_file(path)
            file = open_file(path, access, is_pack=True)
        opened = PackedCheckpoint(file, access.staging, opened)
    return opened


@contextmanager
def closing_on_error(checkpoint: Checkpoint) -> Iterator[None]:
    """Close a checkpoint if the block fails."""
    try:
        yield
    except BaseException:
        checkpoint.close()
        raise


def _check_file(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"{path}: expected a checkpoint, got nothing of that name")
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file or a directory, got something else")


def _open_container(access: Access, path: Path) -> Checkpoint:
    match _container_of(path):
        case "index":
            return ShardedCheckpoint(path, partial(_open_shard, access), access.staging)
        case "torch":
            return TorchCheckpoint(path)
        case "safetensors":
            # A pack is a safetensors file with metadata of its own.
            plain = SafetensorsCheckpoint(path, access)
            return PackedCheckpoint(plain.file, access.staging) if is_pack(plain.metadata) else plain
        case never:
            assert_never(never)


def _open_shard(access: Access, path: Path) -> Checkpoint:
    if not is_remote(path) and not path.exists():
        detail = "expected this shard, which the index lists, got no such file"
        raise CheckpointError(f"{path}: {detail}", Remedy("download it, or save the model again"))
    # Otherwise an index that lists itself would be opened forever.
    if _container_of(path) == "index":
        raise CheckpointError(f"{path}: expected a file of tensors, got an index in an index")
    return _open_container(access, path)


def _container_of(path: Path) -> Container:
    """Return the kind of a file: by the ending of its name, else by its first bytes (a zip archive or a pickle)."""
    if is_shard_index(path.name):
        return "index"
    if path.suffix in TORCH_ENDINGS:
        return "torch"
    if path.suffix == ".safetensors" or is_remote(path) or not path.exists():
        return "safetensors"
    with open(path, "rb") as file:
        head = file.read(9)
    # A safetensors header is '{...', after its length in eight bytes.
    is_torch = head.startswith((b"PK\3\4", b"\x80\2")) and not head.endswith(b"{")
    return "torch" if is_torch else "safetensors"
