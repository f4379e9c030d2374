"""The state of a fit on disk, from which an interrupted fit resumes."""

import hashlib
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.files.output_file import output_errors

FORMAT = "dtscodec-fit-1"
"""Begins the key: another version of this package may fit otherwise."""
SECONDS = 60.0
"""Time between two writes."""


class FitCheckpoint:
    """A file with the state of one fit.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        Digest of everything that the fit depends on: the state of another fit is ignored.
    seconds : float
        Least time between two writes; with 0 every state is written.
    """

    def __init__(self, path: Path, key: str, seconds: float = SECONDS) -> None:
        self._path, self._key, self._seconds = path, f"{FORMAT} {key}", seconds
        self._written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state that an earlier run of the same fit has written; None if there is none that can be read."""
        # Torch writes archives, whose directory is at their end: an incomplete file has none.
        if not zipfile.is_zipfile(self._path):
            return None
        found: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        return found["state"] if found["key"] == self._key else None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state, if the last write is long enough ago.

        Parameters
        ----------
        state : dict
            Made of tensors and builtins.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        if time.monotonic() < self._written + self._seconds:
            return
        # Beside it, then renamed: a run that is killed meanwhile leaves the earlier state.
        beside = self._path.with_name(f"{self._path.name}.new")
        with output_errors(self._path):
            torch.save({"key": self._key, "state": state}, beside)
            os.replace(beside, self._path)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the file, once the result of the fit is stored."""
        for path in (self._path, self._path.with_name(f"{self._path.name}.new")):
            path.unlink(missing_ok=True)


def fit_key(settings: object, batches: Sequence[SampleBatch]) -> str:
    """Return a digest of all that a fit depends on.

    Parameters
    ----------
    settings : object
        Its `repr` has all settings.
    batches : sequence of SampleBatch
        The samples.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for batch in batches:
        for name, tensor in sorted(batch.inputs.items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
