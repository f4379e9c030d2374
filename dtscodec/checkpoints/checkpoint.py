"""The protocol of a checkpoint: named tensors that are read one at a time."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, runtime_checkable

from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec

if TYPE_CHECKING:
    import torch

Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, torch.Tensor]"
"""How users name a checkpoint: a path, or tensors in memory (torch's or numpy's)."""

SELF = TypeVar("SELF")


@runtime_checkable
class Checkpoint(Protocol):
    """Named tensors that are read one at a time. A context manager; safe to read from many threads."""

    @property
    def location(self) -> str:
        """Its name, for messages."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Dtype and shape of every tensor, names ascending by their UTF-8 bytes."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's own metadata."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Tensors that are the same memory seen the same way: later name -> first name."""

    @property
    def directory(self) -> Path | None:
        """Where small files of the model lie: the directory itself, or the one that holds a single file."""

    @property
    def is_directory(self) -> bool:
        """Whether it was given as a directory, or by the index of one."""

    @property
    def weight_files(self) -> frozenset[str]:
        """Names in `directory` of the files that hold the tensors, the index included."""

    @property
    def staging(self) -> Path | None:
        """The folder for ranges of remote files, so that each is transferred once."""

    def read(self, name: str) -> Bytes:
        """The little-endian bytes of a tensor in C order: uint8 [nbytes], fresh or a read-only view.

        Raises
        ------
        KeyError
            There is no such tensor.
        CheckpointError
            The file was changed or cannot be read.
        """

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background, where that helps."""

    def signature(self, name: str) -> tuple[int | str, ...] | None:
        """Identity of the content, as the file is now; None where content may change unseen."""

    def close(self) -> None:
        """Close files and free memory."""

    def __enter__(self: SELF) -> SELF: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
