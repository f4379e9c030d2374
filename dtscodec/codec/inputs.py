"""Inputs as users name them -> opened ones."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.identity import Base


def as_base(base: "Source | Base") -> AbstractContextManager[Base]:
    """A context in which the base is open. A `Base` stays its owner's to close."""
    return nullcontext(base) if isinstance(base, Base) else Base(base)


def weight_paths(*checkpoints: Checkpoint) -> Iterator[Path]:
    """The files that hold the tensors of these checkpoints."""
    for checkpoint in checkpoints:
        if checkpoint.directory is not None:
            yield from (checkpoint.directory / name for name in checkpoint.weight_files)
