"""Merged moves that wait in a temporary file until all of them are known."""

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.files.output_file import output_errors
from dtscodec.format.dtypes import TensorSpec


class Kept:
    """Tensors of float32 by name, in a file without a name.

    Parameters
    ----------
    folder : Path
        Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with output_errors(folder):
            self._file = tempfile.TemporaryFile(dir=str(folder))  # noqa: SIM115 - closed by `close`
        self._places: dict[str, tuple[int, TensorSpec]] = {}
        self.norms: dict[str, float] = {}
        """Frobenius norm of each."""

    def add(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor; the inverse of `read`. OutputError if the disk is full."""
        with output_errors(self._folder):
            begin = self._file.seek(0, 2)
            self._file.write(tensor_bytes(tensor).data)
        self._places[name] = begin, TensorSpec("F32", tuple(tensor.shape))
        self.norms[name] = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))

    def read(self, name: str) -> Tensor:
        """A tensor that was kept; the inverse of `add`."""
        begin, spec = self._places[name]
        with output_errors(self._folder):
            self._file.seek(begin)
            data = np.frombuffer(bytearray(self._file.read(spec.nbytes)), np.uint8)
        return tensor_from_bytes(data, spec)

    def close(self) -> None:
        """Forget all."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextmanager
def kept_in(folder: Path) -> Iterator[Kept]:
    """Merged moves within a ``with``."""
    kept = Kept(folder)
    try:
        yield kept
    finally:
        kept.close()
