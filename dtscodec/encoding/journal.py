"""The journal of an encode: results on disk, from which an interrupted encode resumes.

An encode is a fixed sequence of steps, so a journal is the plain list of their results. It is removed when the encode
ends, and when the input is refused. Any other error, and the death of the process, leave it for the next run.
"""

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.encoding.tensor_task import RESULT_PARTS
from dtscodec.errors import ConfigError, EncodeError, JournalMismatchError, RefusedError, Remedy
from dtscodec.executors.versions import build
from dtscodec.files.record_file import RecordFile
from dtscodec.messages import one_line

MAGIC = b"dtscodec-journal-1\n"
BEGIN, RESULT, DONE = b"B", b"R", b"D"
"""Kinds of records: an encode begins, a result of one of its steps, its pack is complete."""
REFUSALS = (EncodeError, RefusedError, ConfigError)
"""Errors that the same call would raise again."""

_START_AFRESH = Remedy("start afresh with {fresh}, or choose another output ({out})", {"fresh": "True"})


class Journal:
    """The results of one encode, or of several in sequence, in a file. A context manager.

    Parameters
    ----------
    path : path
        The file, usually next to the output. Results that an earlier run left in it are used again.
    fresh : bool
        Discard the results of an earlier run.

    Raises
    ------
    OutputError
        The file cannot be written, is in use by another process, or is no journal.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> from safetensors.torch import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     base, fine = f"{folder}/base.safetensors", f"{folder}/fine.safetensors"
    ...     save_file({"w": torch.zeros(8, 8)}, base)
    ...     save_file({"w": torch.ones(8, 8)}, fine)
    ...     with Journal(f"{folder}/task.part") as journal:
    ...         report = dtscodec.encode(base, fine, f"{folder}/task.safetensors", journal=journal)
    ...     journal.path.exists()
    False
    """

    def __init__(self, path: str | os.PathLike[str], fresh: bool = False) -> None:
        self.path = Path(path)
        self.was_found = self.path.exists()
        """True if an earlier run left the file."""
        self._file = RecordFile(self.path, MAGIC)
        if fresh:
            self._file.cut(0)
        self._used = 0  # Records that this run has passed or appended.
        self._is_begun = False

    def __len__(self) -> int:
        """Return the number of results."""
        return sum(record.kind == RESULT for record in self._file.records)

    def begin(self, key: Callable[[], bytes]) -> dict[str, Any] | None:
        """Begin an encode, or resume it.

        Parameters
        ----------
        key : callable
            Returns a digest of all inputs and settings that the results depend on; see `journal_key`.

        Returns
        -------
        dict or None
            The report that was passed to `finish`, if an earlier run finished this encode.

        Raises
        ------
        JournalMismatchError
            The earlier run had other inputs or settings, or its record is damaged.
        """
        digest = key()
        # Skip the results of the encode before, if its pack was complete and they were not needed.
        while self._next() not in (BEGIN, None):
            self._used += 1
        if self._next() is None:
            self._append(BEGIN, digest)
        elif self._take() != digest:
            raise self._of_another()
        self._is_begun = True
        end = next((record for record in self._file.records[self._used :] if record.kind != RESULT), None)
        return self._load(self._file.read(end)) if end is not None and end.kind == DONE else None

    def stored(self, step: str, names: Sequence[str]) -> Iterator[Any]:
        """Yield the results of a step that an earlier run stored; the inverse of `store`.

        Parameters
        ----------
        step : str
            Name of the step.
        names : sequence of str
            Names of tensors, in the order of the step. Results are yielded for as many of the first as are stored.

        Raises
        ------
        JournalMismatchError
            The next result is of another step or tensor, or is damaged.
        """
        for name in names:
            if self._next() != RESULT:
                return
            place, result = self._load(self._take())
            if place != (step, name):
                raise self._of_another()
            yield result

    def store(self, step: str, name: str, result: object) -> None:
        """Store the result of a step for a tensor; the inverse of `stored`.

        Parameters
        ----------
        step : str
            Name of the step.
        name : str
            Name of the tensor.
        result : object
            Made of builtins and the classes in `RESULT_PARTS`.
        """
        self._append(RESULT, pickle.dumps(((step, name), result), protocol=5))

    def finish(self, report: dict[str, Any]) -> None:
        """Store the report on a complete pack, just before the pack appears under its name.

        Parameters
        ----------
        report : dict
            Values by name; `begin` returns it if the encode is run again.
        """
        if self._next() == DONE:
            self._used += 1
        else:
            self._append(DONE, pickle.dumps(report, protocol=5))

    def outlives(self, error: BaseException) -> bool:
        """Return whether the file remains for another run to resume if this error ends the ``with`` block."""
        return self._stays(type(error))

    def _stays(self, kind: type[BaseException] | None) -> bool:
        is_refused = kind is not None and issubclass(kind, REFUSALS) and self._is_begun
        return kind is not None and not is_refused and len(self) > 0

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close(remove=not self._stays(kind))

    def _next(self) -> bytes | None:
        """Return the kind of the next record of an earlier run; None after the last."""
        return self._file.records[self._used].kind if self._used < len(self._file.records) else None

    def _take(self) -> bytes:
        self._used += 1
        return self._file.read(self._file.records[self._used - 1])

    def _append(self, kind: bytes, content: bytes) -> None:
        if self._next() is not None:
            raise self._of_another()
        self._file.append(kind, content)
        self._used += 1

    def _of_another(self) -> JournalMismatchError:
        detail = "expected finished tensors of the same encode, got those of other inputs or settings"
        return JournalMismatchError(f"{self.path}: {detail}", _START_AFRESH)

    def _load(self, content: bytes) -> Any:
        """Unpickle a record."""
        try:
            return _Unpickler(io.BytesIO(content)).load()
        except Exception as error:  # Invalid pickles raise nearly any exception.
            detail = f"expected results of an encode, got '{one_line(error)}'"
            raise JournalMismatchError(f"{self.path}: {detail}", _START_AFRESH) from error


class NoJournal:
    """A null object in place of a `Journal`, for an encode that need not resume: stores nothing, computes no key."""

    def begin(self, key: Callable[[], bytes]) -> None:
        """Do nothing; see `Journal.begin`."""

    def stored(self, step: str, names: Sequence[str]) -> Iterator[Any]:
        """Yield nothing; see `Journal.stored`."""
        return iter(())

    def store(self, step: str, name: str, result: object) -> None:
        """Do nothing; see `Journal.store`."""

    def finish(self, report: dict[str, Any]) -> None:
        """Do nothing; see `Journal.finish`."""


def journal_key(checkpoints: Sequence[Checkpoint], *settings: object) -> bytes:
    """Return a digest of everything that the results of an encode depend on: files, settings, and the arithmetic here.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
        Base and fine-tune. Files are compared by identity, size and time of change, not by content.
    settings : object
        Values that `repr` represents completely.

    Raises
    ------
    ConfigError
        Tensors are in memory, where changes cannot be detected.
    """
    tensors = [(name, spec, c.signature(name)) for c in checkpoints for name, spec in c.specs.items()]
    unsure = [name for name, _, signature in tensors if signature is None]
    if unsure:
        detail = f"expected tensors in files, got {unsure[0]!r} in memory, where changes cannot be detected"
        raise ConfigError(f"journal: {detail}", Remedy("save them, or give no journal"))
    metadata = [c.metadata for c in checkpoints]
    # Results of other versions or vector instructions may differ in the last bits, and must not be mixed.
    arithmetic = build(), torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(repr((arithmetic, tensors, metadata, settings)).encode()).digest()


class _Unpickler(pickle.Unpickler):
    """Unpickles only the classes that results consist of, since a file may name any function to call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in RESULT_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return RESULT_PARTS[module, name]
