"""Several fine-tunes of one base -> a directory of packs, with an index that lists them."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeAlias

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import as_checkpoint
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encode import encode, passes
from dtscodec.encoding.journal import Journal
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.packs.directory import list_pack, open_pack_directory, pack_path
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, check_new, staging_folder_for
from dtscodec.storage.paths import as_output_path

ProgressOf: TypeAlias = Callable[[str, int], AbstractContextManager[ProgressCallback]]
"""Task and bytes that its passes read -> context manager that yields the progress callback."""

NO_FIGURES: Mapping[str, Mapping[str, float]] = MappingProxyType({})


class Encode(Protocol):
    """A function that writes the pack of one fine-tune, such as `encode`."""

    def __call__(
        self,
        base: Base,
        fine_tune: Checkpoint,
        out: Path,
        config: EncodeConfig,
        *,
        task: str,
        force: bool,
        progress: ProgressCallback,
        executor: Executor | None,
        journal: Journal | None,
    ) -> EncodeReport:
        """Write the pack of one fine-tune; the arguments are those of `encode`."""


def no_bar(task: str, total: int) -> AbstractContextManager[ProgressCallback]:
    """Return a context manager that yields a callback that does nothing."""
    return nullcontext(no_progress)


def encode_all(
    base: "Source | Base",
    fine_tunes: "Mapping[str, Source | Checkpoint]",
    directory: str | os.PathLike[str],
    config: EncodeConfig | None = None,
    *,
    force: bool = False,
    executor: Executor | None = None,
    journal: Journal | None = None,
    progress: ProgressOf = no_bar,
    on_pack: Callable[[str, EncodeReport], None] = lambda task, report: None,
    figures: Mapping[str, Mapping[str, float]] = NO_FIGURES,
    encode_one: Encode = encode,
) -> dict[str, EncodeReport]:
    """Write packs of several fine-tunes into a directory, and list them in its index. The base is hashed once.

    Each pack is listed as soon as it is complete, and remains if a later one fails.

    Parameters
    ----------
    base : path, mapping of tensors, or Base
        The base checkpoint.
    fine_tunes : mapping of str to paths, mappings of tensors, or Checkpoints
        The fine-tunes, by task.
    directory : path
        Local or remote; created if it does not exist. ``packs/<task>.safetensors`` and ``dtscodec.json`` are written
        there. Packs of other tasks in it remain listed.
    config : EncodeConfig, optional
        Settings, as for `encode`.
    force : bool
        Replace packs that exist.
    executor : concurrent.futures.Executor, optional
        As for `encode`.
    journal : Journal, optional
        As for `encode`: the same call resumes, and skips packs that are complete.
    progress : callable
        Called for each task with its name and the bytes that its passes read. Returns a context manager that yields a
        callback, which is called with the bytes of each tensor in each pass.
    on_pack : callable
        Called with task and report when a pack is complete.
    figures : mapping of str to mapping of str to float
        Figures for the index, by task and name, such as the distances of fine-tunes from a merged base.
    encode_one : callable
        A function with the arguments of `encode` that writes one pack.

    Returns
    -------
    dict of str to EncodeReport
        By task.

    Raises
    ------
    DtsError
        As for `encode`. Packs that exist are reported before any work, by `OutputError`.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine_tunes = {"one": {"w": torch.ones(64, 64)}, "two": {"w": -torch.ones(64, 64)}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reports = dtscodec.encode_all(base, fine_tunes, folder)
    ...     [report.path.name for report in reports.values()]
    ['one.safetensors', 'two.safetensors']
    """
    config = config or EncodeConfig()
    target = as_output_path(directory)
    packs = {task: pack_path(target, task) for task in fine_tunes}
    # A resumed run finds packs that it has written itself.
    if journal is None or not journal.was_found:
        for path in packs.values():
            check_new(path, force)
    reports = {}
    with (
        open_pack_directory(target),
        staging_folder_for(target, base) as staging,
        as_base(base, Access(staging, whole=True), config.dequantize_base) as opened,
    ):
        # One fine-tune after the other; the base stays open, and is hashed once.
        for task, path in packs.items():
            with (
                staging_folder_for(path, fine_tunes[task]) as fine_staging,
                as_checkpoint(fine_tunes[task], Access(fine_staging, whole=True)) as fine,
                progress(task, passes(config) * sum(spec.nbytes for spec in fine.specs.values())) as count,
            ):
                report = encode_one(
                    opened,
                    fine,
                    path,
                    config,
                    task=task,
                    force=force,
                    progress=count,
                    executor=executor,
                    journal=journal,
                )
            entry = report.pack_bytes, report.pack_id, _path_of(base)
            # Listed at once, so that the pack remains if a later one fails.
            list_pack(target, task, path, *entry, figures.get(task, {}))
            reports[task] = report
            on_pack(task, report)
    return reports


def _path_of(base: "Source | Base") -> str | os.PathLike[str] | None:
    """Return the path of a base for the index of its directory; None if its tensors are in memory."""
    if isinstance(base, Base):
        return None if base.checkpoint.directory is None else base.location
    return base if isinstance(base, (str, os.PathLike)) else None
