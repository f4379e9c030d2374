"""The protocol of a checkpoint: named tensors that are read one at a time."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, runtime_checkable

from dtscodec.checkpoints.passed_over import PassedOverFile
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec

if TYPE_CHECKING:
    import torch

Plain: TypeAlias = "str | os.PathLike[str] | Mapping[str, torch.Tensor]"
"""A path, or tensors in memory (torch's or numpy's)."""

Source: TypeAlias = "Plain | Sequence[Plain]"
"""A checkpoint as users name it: a path, or tensors in memory. A sequence is a chain: a checkpoint, an exact pack made
against it, an exact pack made against what that decodes to, and so on."""

Specs: TypeAlias = Mapping[str, TensorSpec]
"""Dtype and shape of tensors, by name."""

Signature: TypeAlias = tuple[int | str, ...]
"""Numbers and names that identify the content of a tensor: they change when the file does."""

_Self = TypeVar("_Self")


@runtime_checkable
class Checkpoint(Protocol):
    """Named tensors that are read one at a time. A context manager; safe to read from many threads."""

    @property
    def location(self) -> str:
        """Name of the checkpoint, for messages."""

    @property
    def specs(self) -> Specs:
        """Dtype and shape of every tensor, names ascending by their UTF-8 bytes."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata in the header of the file, if its format has any."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Tensors that are equal views of the same memory: later name -> first name."""

    @property
    def directory(self) -> Path | None:
        """Directory of auxiliary files: that of the model, or the one that contains a single file."""

    @property
    def is_directory(self) -> bool:
        """True if the checkpoint was opened as a directory, or by the index of one."""

    @property
    def stem(self) -> str:
        """Stem of its weight files, by which it is restored; see `dtscodec.format.weight_files.WeightFiles`."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders with weights of their own, ascending; names of their tensors begin with the folder and a slash."""

    @property
    def passed_over(self) -> tuple[PassedOverFile, ...]:
        """Files of a directory that hold weights but were not read, and why.

        Raises
        ------
        CheckpointError
            A folder of the directory cannot be listed.
        """

    @property
    def weight_files(self) -> frozenset[str]:
        """Names in `directory` of the files that hold the tensors, the index included."""

    @property
    def staging(self) -> Path | None:
        """Folder for ranges of remote files, so that each is transferred once; None if there is none."""

    def read(self, name: str) -> Bytes:
        """Return the little-endian bytes of a tensor in C order: uint8 [nbytes], fresh or a read-only view.

        Parameters
        ----------
        name : str
            The tensor.

        Raises
        ------
        KeyError
            There is no such tensor.
        CheckpointError
            The file was changed or cannot be read.
        """

    def prefetch(self, name: str) -> None:
        """Begin to read a tensor in the background, where that helps."""

    def signature(self, name: str) -> Signature | None:
        """Return the signature of a tensor, as its file is now; None for memory, which may change at any time."""

    def close(self) -> None:
        """Close files and free memory."""

    def __enter__(self: _Self) -> _Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
