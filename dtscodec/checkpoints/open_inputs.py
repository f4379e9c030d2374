"""Inputs as users name them -> opened ones."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.storage.open_file import BY_RANGE, Access
from dtscodec.storage.paths import is_remote


def as_base(base: "Source | Base", access: Access = BY_RANGE) -> AbstractContextManager[Base]:
    """A context in which the base is open. A `Base` stays its owner's to close."""
    return nullcontext(base) if isinstance(base, Base) else Base(base, access)


def as_checkpoint(source: "Source | Checkpoint", access: Access = BY_RANGE) -> AbstractContextManager[Checkpoint]:
    """A context in which a checkpoint is open. One that was open already stays its owner's to close."""
    if isinstance(source, (str, os.PathLike, Mapping)):
        return open_checkpoint(source, access)
    return nullcontext(source)


def weight_paths(out: Path, *checkpoints: Checkpoint) -> Iterator[Path]:
    """The files that hold the tensors of these checkpoints and are where an output is made: here, or elsewhere."""
    for checkpoint in checkpoints:
        if checkpoint.directory is not None and is_remote(checkpoint.directory) == is_remote(out):
            yield from (checkpoint.directory / name for name in checkpoint.weight_files)
