"""An on-disk store of merged task vectors, for methods that need all of them before the first is used."""

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


class TaskVectorStore:
    """Merged task vectors by tensor name, float32, in an unnamed temporary file.

    Parameters
    ----------
    folder : Path
        Directory of the temporary file.

    Raises
    ------
    OutputError
        The file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with output_errors(folder):
            self._file = tempfile.TemporaryFile(dir=str(folder))  # noqa: SIM115 - closed by `close`
        self._places: dict[str, tuple[int, TensorSpec]] = {}
        self.norms: dict[str, float] = {}
        """Frobenius norms, by tensor name."""

    def add(self, name: str, vector: Tensor) -> None:
        """Write a float32 tensor; the inverse of `read`.

        Raises
        ------
        OutputError
            It cannot be written, such as on a full disk.
        """
        with output_errors(self._folder):
            # Append: a `read` may have moved the position.
            begin = self._file.seek(0, 2)
            self._file.write(tensor_bytes(vector).data)
        self._places[name] = begin, TensorSpec("F32", tuple(vector.shape))
        self.norms[name] = float(torch.linalg.vector_norm(vector, dtype=torch.float64))

    def read(self, name: str) -> Tensor:
        """Read a float32 tensor; the inverse of `add`."""
        begin, spec = self._places[name]
        with output_errors(self._folder):
            self._file.seek(begin)
            # A bytearray, since torch expects writable memory.
            data = np.frombuffer(bytearray(self._file.read(spec.nbytes)), np.uint8)
        return tensor_from_bytes(data, spec)

    def close(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            self._file.close()


@contextmanager
def open_store(folder: Path) -> Iterator[TaskVectorStore]:
    """Make a store that is deleted at the end of a ``with`` block."""
    store = TaskVectorStore(folder)
    try:
        yield store
    finally:
        store.close()
