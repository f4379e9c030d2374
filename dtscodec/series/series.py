"""A series of checkpoints in a directory: appended one by one, extracted bit for bit."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Plain, Source
from dtscodec.checkpoints.open import as_checkpoint, open_checkpoint
from dtscodec.decoding.decode import decode
from dtscodec.decoding.decoded import Decoded
from dtscodec.encoding.config import EXACT, EncodeConfig
from dtscodec.encoding.encode import encode
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.errors import CheckpointError, ConfigError, Remedy
from dtscodec.files.directory_lock import directory_lock
from dtscodec.files.spool import PIECE_BYTES
from dtscodec.packs.pack import Pack
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.series.series_index import SeriesIndex, Step, read_series_index, unlisted, write_series_index
from dtscodec.storage.open_file import WHOLE, new_file
from dtscodec.storage.paths import as_path, is_remote, work_folder
from dtscodec.storage.staging import staging_folder

MAX_LINKS = 8
"""Most links from an anchor to any step."""
LARGEST_LINK = 0.5
"""Largest link to an anchor, as a share of the anchor; beyond, a new anchor is made."""


class Series:
    """The checkpoints of a training run, each an exact pack against the one before or an anchor.

    Reading needs no lock: packs and index appear whole, and packs that a step needs are never changed.

    Parameters
    ----------
    directory : path
        Local, in remote storage, or (for reading) on the Hub. It is created by the first `append`.

    Raises
    ------
    CheckpointError
        The directory's index is not valid.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     series = dtscodec.Series(folder)
    ...     for step in range(3):
    ...         _ = series.append({"w": torch.full((64, 64), float(step))}, step=step)
    ...     with series.decode(1) as state:
    ...         [step.step for step in series.steps], float(state["w"][0, 0])
    ([0, 1, 2], 1.0)
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = as_path(directory)
        self.index = self._read()

    def _read(self) -> SeriesIndex:
        return read_series_index(self.directory) or SeriesIndex()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, numbers ascending."""
        return self.index.steps

    def refresh(self) -> None:
        """Read the index again: a writer may have appended steps."""
        self.index = self._read()

    # Reading

    def step(self, number: int | None = None) -> Step:
        """Return the step of a number, by default the last one.

        Raises
        ------
        CheckpointError
            There is no such step.
        """
        found = (self.steps[-1] if self.steps else None) if number is None else self.index.step(number)
        if found is None:
            known = f"{self.steps[0].step} to {self.steps[-1].step}" if self.steps else "none"
            raise CheckpointError(f"{self.directory}: expected step {number}, got {len(self.steps)} steps, {known}")
        return found

    def path(self, step: Step) -> Path:
        """Return the path of the pack of a step."""
        return self.directory / step.file

    def chain(self, step: Step) -> "list[Plain]":
        """Return the chain that decodes to a step, for `dtscodec.decode` and the like: base if any, anchor, links."""
        packs = [self.path(link) for link in self.index.chain(step)]
        base = self.base_of_anchors()
        return [*([base] if isinstance(base, (str, os.PathLike)) else []), *packs]

    def base_of_anchors(self) -> "Source":
        """Return the checkpoint that anchors are made against; no tensors if they need none."""
        if self.index.base is None:
            return {}
        is_absolute = "://" in self.index.base or Path(self.index.base).is_absolute()
        return self.index.base if is_absolute else self.directory / self.index.base

    def open(self, number: int | None = None) -> Checkpoint:
        """Open a step as a checkpoint, to be closed by the caller; arguments and errors are those of `decode`."""
        chain = self.chain(self.step(number))
        return open_checkpoint(chain if len(chain) > 1 else chain[0], WHOLE)

    def decode(self, number: int | None = None) -> Decoded:
        """Return a step as a lazy mapping of tensors, which can be saved; see `dtscodec.decode`.

        Parameters
        ----------
        number : int, optional
            The step; by default the last one.

        Raises
        ------
        CheckpointError
            There is no such step, or the base of its anchor cannot be read.
        FormatError, BaseMismatchError
            As for `dtscodec.decode`.
        """
        step = self.step(number)
        return decode(self.path(step), self.chain(step)[:-1] or None, whole=True)

    # Writing

    def append(
        self,
        checkpoint: "Source | Checkpoint",
        *,
        step: int | None = None,
        base: "Source | None" = None,
        previous: "Source | Checkpoint | None" = None,
        config: EncodeConfig = EXACT,
        progress: ProgressCallback = no_progress,
    ) -> Step:
        """Store the next checkpoint. It is listed when its pack is on disk, so a reader sees whole steps only.

        Parameters
        ----------
        checkpoint : path, mapping of tensors, or Checkpoint
            The checkpoint.
        step : int, optional
            Its number, above that of the last step; by default the next one.
        base : path, optional
            Of the first step: the checkpoint that anchors are made against, such as the model that training began
            with. It must stay where it is. By default anchors need none.
        previous : path, mapping of tensors, or Checkpoint, optional
            The checkpoint of the last step, if it is at hand: that saves decoding it. It is checked.
        config : EncodeConfig
            Settings with `exact`.
        progress : callable
            As for `dtscodec.encode`.

        Raises
        ------
        ConfigError
            The number is not above the last one, settings are not exact, or a base is given later on.
        OutputError
            Another process is writing to the series, or it cannot be written.
        CheckpointError, EncodeError
            As for `dtscodec.encode`; or `previous` is not the checkpoint of the last step.
        """
        if not config.exact:
            raise ConfigError("expected settings with exact=True for a series, got lossy ones")
        if not is_remote(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        with directory_lock(self.directory):
            # Only now: another writer may have appended since.
            self.refresh()
            self.sweep()
            number = self._next_number(step)
            self._set_base(base)
            with (
                as_checkpoint(checkpoint, WHOLE) as opened,
                staging_folder(work_folder(self.directory / "x")) as folder,
            ):
                added = self._publish(number, *self._write(folder, opened, previous, config, progress))
        return added

    def _next_number(self, step: int | None) -> int:
        last = self.steps[-1].step if self.steps else -1
        if step is not None and step <= last:
            raise ConfigError(f"{self.directory}: expected a step after {last}, got {step}")
        return last + 1 if step is None else step

    def _set_base(self, base: "Source | None") -> None:
        if base is None:
            return
        if not isinstance(base, (str, os.PathLike)):
            raise ConfigError("expected the path of a base, got tensors in memory, which readers cannot find")
        name = os.fspath(base) if "://" in os.fspath(base) else os.path.abspath(base)
        if self.steps and self.index.base != name:
            raise ConfigError(
                f"{self.directory}: expected the base {self.index.base}, as of the first step, got {name}"
            )
        self.index = replace(self.index, base=name)

    def _write(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        previous: "Source | Checkpoint | None",
        config: EncodeConfig,
        progress: ProgressCallback,
    ) -> tuple[Path, EncodeReport, int | None]:
        """Write the pack of a checkpoint to a folder; return it, and the step that it is based on."""
        last = self.steps[-1] if self.steps else None
        if last is not None and self.index.depth(last) < MAX_LINKS:
            with self._opened(last, previous) as base:
                return (*encode_to(base, checkpoint, folder / "link", config, progress), last.step)
        anchor = self.index.chain(last)[0] if last is not None else None
        if anchor is not None:
            # The chain is as long as it may be: the next link goes to the anchor again, as long as it is short.
            with self._opened(anchor, None) as base:
                path, report = encode_to(base, checkpoint, folder / "link", config, progress)
            if report.pack_bytes <= LARGEST_LINK * anchor.size:
                return path, report, anchor.step
        with Base(self.base_of_anchors(), WHOLE) as base:
            return (*encode_to(base, checkpoint, folder / "anchor", config, progress), None)

    @contextmanager
    def _opened(self, step: Step, given: "Source | Checkpoint | None") -> Iterator[Base]:
        """Open what a step decodes to: its chain, or the checkpoint that is given, once it is checked."""
        if given is None:
            with self.open(step.step) as opened, Base(opened) as base:
                yield base
            return
        with as_checkpoint(given, WHOLE) as opened, Base(opened, pack=step.id) as base:
            if (found := base.digest(base.specs).hex()) != step.content:
                detail = f"expected the checkpoint of step {step.step}, of content {step.content}, got {found}"
                raise CheckpointError(f"{base.location}: {detail}", Remedy("leave it out, so that it is decoded"))
            yield base

    def _publish(self, number: int, pack: Path, report: EncodeReport, base: int | None) -> Step:
        """Move a pack into the directory, then list it."""
        with Pack(pack) as opened:
            content = opened.summary.content
        assert content is not None
        name = self.place(number, pack, report.pack_id)
        added = Step(number, name, report.pack_bytes, report.pack_id, content, base)
        self.publish_index((*self.steps, added))
        return added

    def place(self, number: int, pack: Path, pack_id: str) -> str:
        """Copy a pack into the directory, and return its name there, which no other pack has."""
        name = f"step-{number:08d}-{pack_id[:12]}.safetensors"
        with new_file(self.directory / name, force=True) as file, pack.open("rb") as source:
            shutil.copyfileobj(source, file, PIECE_BYTES)
        return name

    def publish_index(self, steps: Sequence[Step]) -> None:
        """Make these the steps of the series, for all readers at once."""
        self.index = replace(self.index, steps=tuple(steps))
        write_series_index(self.directory, self.index)

    def sweep(self) -> None:
        """Delete packs that no step lists: an interrupted writer, or pruning, left them."""
        if is_remote(self.directory):
            return
        for name in unlisted(self.index, os.listdir(self.directory)):
            (self.directory / name).unlink(missing_ok=True)


def encode_to(
    base: Base, checkpoint: Checkpoint, out: Path, config: EncodeConfig, progress: ProgressCallback
) -> tuple[Path, EncodeReport]:
    """Write the pack of a checkpoint against a base; return its path and the report on it."""
    report = encode(base, checkpoint, out.with_suffix(".safetensors"), config, progress=progress)
    return report.path, report
