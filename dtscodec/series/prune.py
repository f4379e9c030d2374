"""Steps of a series are deleted; those that were based on them are stored anew, bit for bit the same."""

from collections.abc import Collection
from pathlib import Path

from dtscodec.checkpoints.base import Base
from dtscodec.encoding.config import EXACT
from dtscodec.errors import CheckpointError
from dtscodec.files.directory_lock import directory_lock
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.series.series import MAX_LINKS, Series, encode_to
from dtscodec.series.series_index import SeriesIndex, Step
from dtscodec.storage.open_file import WHOLE
from dtscodec.storage.paths import work_folder
from dtscodec.storage.staging import staging_folder


def prune(series: Series, numbers: Collection[int], *, progress: ProgressCallback = no_progress) -> int:
    """Delete steps, and return the number of those that had to be stored anew.

    Parameters
    ----------
    series : Series
        The series.
    numbers : collection of int
        The steps to delete; not all of them.
    progress : callable
        As for `dtscodec.encode`, for each step that is stored anew.

    Raises
    ------
    CheckpointError
        There is no such step, or none would stay.
    OutputError
        Another process is writing to the series, or it cannot be written.
    """
    with directory_lock(series.directory):
        series.refresh()
        gone = {series.step(number).step for number in numbers}
        if len(gone) == len(series.steps):
            raise CheckpointError(f"{series.directory}: expected to leave a step, got all {len(gone)} to delete")
        before = Series(series.directory)
        kept: list[Step] = []
        anew = 0
        with staging_folder(work_folder(series.directory / "x")) as folder:
            for step in before.steps:
                if step.step in gone:
                    continue
                if step.base in gone or _depth(kept, step) > MAX_LINKS:
                    step = _rebased(before, step, kept, folder, progress)
                    anew += 1
                kept.append(step)
        # The new packs are there: now the index, then the old packs go.
        series.publish_index(kept)
        series.sweep()
        return anew


def _depth(kept: list[Step], step: Step) -> int:
    """Return the number of links from an anchor to a step among those that stay."""
    return SeriesIndex((*kept, step)).depth(step)


def _rebased(series: Series, step: Step, kept: list[Step], folder: Path, progress: ProgressCallback) -> Step:
    """Store a step anew, against the last step that stays, or as an anchor; without listing it."""
    last = kept[-1] if kept and _depth(kept[:-1], kept[-1]) < MAX_LINKS else None
    with series.open(step.step) as checkpoint:
        # What the last step decodes to is read by its old chain. Its own pack may be a new one.
        base = Base(series.base_of_anchors(), WHOLE) if last is None else Base(series.open(last.step), pack=last.id)
        try:
            path, report = encode_to(base, checkpoint, folder / str(step.step), EXACT, progress)
        finally:
            base.checkpoint.close()
    name = series.place(step.step, path, report.pack_id)
    return Step(step.step, name, report.pack_bytes, report.pack_id, step.content, None if last is None else last.step)
