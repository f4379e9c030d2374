"""Inputs as users name them -> opened ones."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dtscodec.checkpoints.checkpoint import Checkpoint, Source, open_checkpoint
from dtscodec.checkpoints.identity import Base


def as_base(base: "Source | Base") -> AbstractContextManager[Base]:
    """A context in which the base is open. A `Base` stays its owner's to close."""
    return nullcontext(base) if isinstance(base, Base) else Base(base)


def as_checkpoint(source: "Source | Checkpoint") -> AbstractContextManager[Checkpoint]:
    """A context in which a checkpoint is open. One that was open already stays its owner's to close."""
    if isinstance(source, (str, os.PathLike, Mapping)):
        return open_checkpoint(source)
    return nullcontext(source)


def weight_paths(*checkpoints: Checkpoint) -> Iterator[Path]:
    """The files that hold the tensors of these checkpoints."""
    for checkpoint in checkpoints:
        if checkpoint.directory is not None:
            yield from (checkpoint.directory / name for name in checkpoint.weight_files)
