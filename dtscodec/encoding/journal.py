"""Results of an encode, kept on disk as they come: one that was cut off goes on where it ended.

An encode is a fixed sequence of steps, so a journal is the plain list of their results. Its end takes the journal away,
and so does a refusal of the input; whatever else ends it leaves the journal for the next run.
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
from dtscodec.errors import ConfigError, EncodeError, JournalMismatchError, OutputError, RefusedError, Remedy
from dtscodec.executors.versions import build
from dtscodec.files.record_file import RecordFile

MAGIC = b"dtscodec-journal-1\n"
BEGIN, RESULT, DONE = b"B", b"R", b"D"
"""Kinds of records: an encode begins, one of its results, its pack is complete."""
REFUSALS = (EncodeError, RefusedError, ConfigError)
"""Errors that the same command would meet again."""

_START_AFRESH = Remedy("start afresh with {fresh}, or choose another output ({out})", {"fresh": "True"})


class Journal:
    """What encodes have found so far, in a file. A context manager, for one encode or several in a row.

    Parameters
    ----------
    path : path
        The file: beside the output, usually. What an earlier run left in it is used again.
    fresh : bool
        Forget what an earlier run left.

    Raises
    ------
    OutputError
        It cannot be written, another process is at work on it, or it is something else.

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
        """Whether an earlier run left the file."""
        self._file = RecordFile(self.path, MAGIC)
        if fresh:
            self._file.cut(0)
        self._used = 0
        self._is_begun = False

    def __len__(self) -> int:
        """Results in it."""
        return sum(record.kind == RESULT for record in self._file.records)

    def begin(self, key: Callable[[], bytes]) -> dict[str, Any] | None:
        """Begin an encode, or resume it.

        Parameters
        ----------
        key : callable
            Returns a digest of everything that the results depend on; see `key_of`.

        Returns
        -------
        dict or None
            What was passed to `finish`, if an earlier run finished this encode.

        Raises
        ------
        JournalMismatchError
            The earlier run had other inputs or settings.
        """
        digest = key()
        while self._next() not in (BEGIN, None):  # Results of an encode whose pack was there already.
            self._used += 1
        if self._next() is None:
            self._append(BEGIN, digest)
        elif self._take() != digest:
            raise self._of_another()
        self._is_begun = True
        end = next((record for record in self._file.records[self._used :] if record.kind != RESULT), None)
        return _loaded(self._file.read(end)) if end is not None and end.kind == DONE else None

    def stored(self, step: str, names: Sequence[str]) -> Iterator[Any]:
        """Yield the results of a step that an earlier run stored, for the first names; the inverse of `store`."""
        for name in names:
            if self._next() != RESULT:
                return
            of, result = _loaded(self._take())
            if of != (step, name):
                raise self._of_another()
            yield result

    def store(self, step: str, name: str, result: object) -> None:
        """Store the result of a step for a tensor; the inverse of `stored`."""
        self._append(RESULT, pickle.dumps(((step, name), result), protocol=5))

    def finish(self, report: dict[str, Any]) -> None:
        """Store the report on a pack that is complete, and about to appear under its name."""
        if self._next() == DONE:
            self._used += 1
        else:
            self._append(DONE, pickle.dumps(report, protocol=5))

    def outlives(self, error: BaseException) -> bool:
        """Return whether the file stays, for another run to resume, if this error ends the ``with`` block."""
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
        """Kind of the next record that an earlier run left; None if there is no more."""
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


class NoJournal:
    """Stands in for a `Journal` where an encode need not resume: stores nothing, and computes no key."""

    def begin(self, key: Callable[[], bytes]) -> None:
        """Do nothing; see `Journal.begin`."""

    def stored(self, step: str, names: Sequence[str]) -> Iterator[Any]:
        """Yield nothing; see `Journal.stored`."""
        return iter(())

    def store(self, step: str, name: str, result: object) -> None:
        """Do nothing; see `Journal.store`."""

    def finish(self, report: dict[str, Any]) -> None:
        """Do nothing; see `Journal.finish`."""


def key_of(checkpoints: Sequence[Checkpoint], *settings: object) -> bytes:
    """Stands for all that the results of an encode depend on: content of files, settings, and our own arithmetic.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
    settings : object
        Values whose `repr` tells all of them.

    Raises
    ------
    ConfigError
        Tensors are in memory, where they may change unseen.
    """
    tensors = [(name, spec, c.signature(name)) for c in checkpoints for name, spec in c.specs.items()]
    unsure = [name for name, _, signature in tensors if signature is None]
    if unsure:
        detail = f"expected tensors in files, got {unsure[0]!r} in memory, where it may change unseen"
        raise ConfigError(f"journal: {detail}", Remedy("save them, or give no journal"))
    metadata = [c.metadata for c in checkpoints]
    arithmetic = build(), torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(repr((arithmetic, tensors, metadata, settings)).encode()).digest()


class _Unpickler(pickle.Unpickler):
    """Makes the parts of results and nothing else: a file may hold anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in RESULT_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return RESULT_PARTS[module, name]


def _loaded(content: bytes) -> Any:
    """What was pickled."""
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # Pickles that nobody made by `pickle` end in nearly any exception.
        detail = f"expected results of an encode, got '{error}'"
        raise OutputError(
            f"finished tensors: {detail}", Remedy("start afresh with {fresh}", {"fresh": "True"})
        ) from error
