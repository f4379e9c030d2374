"""The fine-tune's outputs on the batches of a fit, in a temporary file: each batch is run once, not in every epoch."""

import shutil
import tempfile
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from dtscodec.calibration.model_outputs import ModelOutputs

LIMIT = 4 * 2**30
"""Most bytes that are stored. 64 texts of 128 tokens take 0.6 GB for a model of 32 layers of 576 features."""
SHARE = 4
"""At most one part in so many of the free space is used."""


class _Place(NamedTuple):
    """Where a tensor is in the file."""

    begin: int
    shape: torch.Size
    dtype: torch.dtype


class StoredOutputs:
    """Outputs of a model on batches; a context manager. What does not fit is not stored, and the model runs anew."""

    def __init__(self) -> None:
        # Unbuffered: the system's cache holds what is read often, as long as nothing else needs the memory.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is open as long as the fit lasts
        self._limit = min(LIMIT, shutil.disk_usage(tempfile.gettempdir()).free // SHARE)
        self._size = 0
        self._places: dict[Hashable, list[list[_Place]]] = {}

    def add(self, key: Hashable, outputs: Sequence[ModelOutputs]) -> None:
        """Store the outputs on the parts of a batch, if there is room.

        Parameters
        ----------
        key : hashable
            The batch.
        outputs : sequence of ModelOutputs
            The outputs, on the CPU.
        """
        tensors = [[part.predictions, *part.hidden_states] for part in outputs]
        if self._size + sum(tensor.nbytes for part in tensors for tensor in part) > self._limit:
            return
        # A disk that is full after all is no reason to stop: this batch is not stored then.
        with suppress(OSError):
            self._places[key] = [[self._write(tensor) for tensor in part] for part in tensors]

    def get(self, key: Hashable) -> list[ModelOutputs] | None:
        """Return what was stored, to the bit; None for a batch that is not stored.

        Parameters
        ----------
        key : hashable
            The batch.
        """
        places = self._places.get(key)
        if places is None:
            return None
        parts = ([self._read(place) for place in part] for part in places)
        return [ModelOutputs(predictions, tuple(hidden)) for predictions, *hidden in parts]

    def __enter__(self) -> "StoredOutputs":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _write(self, tensor: Tensor) -> _Place:
        """Append a tensor."""
        place = _Place(self._size, tensor.shape, tensor.dtype)
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().data
        self._file.seek(self._size)
        while data:
            data = data[self._file.write(data) :]
        self._size += tensor.nbytes
        return place

    def _read(self, place: _Place) -> Tensor:
        """Read a tensor; the inverse of `_write`."""
        tensor = torch.empty(place.shape, dtype=place.dtype)
        data = tensor.flatten().view(torch.uint8).numpy().data
        self._file.seek(place.begin)
        while data:
            data = data[self._file.readinto(data) :]
        return tensor
