"""A family: fine-tunes -> one directory with the base merged from them and a pack of each."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from dtscodec.checkpoints.checkpoint import Source
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encode import encode
from dtscodec.encoding.encode_all import Encode, ProgressOf, encode_all, no_bar
from dtscodec.encoding.journal import Journal
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.errors import ConfigError, OutputError, Remedy
from dtscodec.files.directory_rollback import directory_rollback
from dtscodec.merging.family_base import BASE_NAME, figures_of, key_of_base, make_base
from dtscodec.merging.merge import MergeReport, bytes_to_read
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.merging.methods.registry import make_method
from dtscodec.packs.directory import open_pack_directory, pack_path
from dtscodec.packs.directory_index import INDEX_NAME, read_directory_index
from dtscodec.storage.open_file import check_new
from dtscodec.storage.paths import as_path, is_remote


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """The result of `encode_family`: a directory with a merged base and a pack of each fine-tune.

    Parameters
    ----------
    path : Path
        The directory.
    base : MergeReport or None
        The merge; None if an interrupted run had made the base already.
    packs : dict
        Reports of the packs, by task.
    """

    path: Path
    base: MergeReport | None
    packs: dict[str, EncodeReport]


def encode_family(
    fine_tunes: Mapping[str, Source],
    out: str | os.PathLike[str],
    method: str | MergeMethod = "average",
    base: "Source | None" = None,
    *,
    config: EncodeConfig | None = None,
    grams: Sequence[Source] = (),
    plain_base: bool = False,
    force: bool = False,
    executor: Executor | None = None,
    journal: Journal | None = None,
    progress: ProgressOf = no_bar,
    on_base: Callable[[MergeReport], None] = lambda report: None,
    on_pack: Callable[[str, EncodeReport], None] = lambda task, report: None,
    encode_one: Encode = encode,
) -> FamilyReport:
    """Merge fine-tunes into a base, and write it and a pack of each fine-tune into a directory.

    All files appear, or none: if it fails, the directory is as it was before. If a journal outlives the failure, the
    base and the packs that are complete stay, and the same call resumes after them.

    Parameters
    ----------
    fine_tunes : mapping of str to paths or mappings of tensors
        By task, in the order of `grams`.
    out : path
        A local directory. It gets ``base.safetensors``, auxiliary files that all fine-tunes have in common,
        ``packs/<task>.safetensors``, and ``dtscodec.json``, which lists them with their distances from the base.
    method : str or MergeMethod
        How fine-tunes are merged; see `dtscodec.merge`.
    base : path or mapping of tensors, optional
        The pre-trained base of the fine-tunes; every method but `average` needs it. It is not stored.
    config : EncodeConfig, optional
        Settings of the packs, without `renames`. `raw` also names the tensors that the base leaves out; `files`,
        `device` and `dequantize_base` (of a pre-trained base) hold for the base, too.
    grams : sequence of paths or mappings of tensors
        Gram matrices of the layers' inputs, one per fine-tune; used by `esm`.
    plain_base : bool
        Store the base as a plain checkpoint. By default it is a pack of exact tensors, which is smaller.
    force : bool
        Replace files that exist.
    executor : concurrent.futures.Executor, optional
        Its workers encode tensors; the packs do not depend on it.
    journal : Journal, optional
        Stores results, so that an interrupted run can be resumed. It needs fine-tunes in files.
    progress : callable
        Called with ``"base"`` and the bytes that the merge reads, then with each task and the bytes that its encode
        reads; returns a context manager that yields the callable to call with bytes.
    on_base : callable
        Called with the report of the merge, once the base is written; not if an interrupted run had made it.
    on_pack : callable
        Called with the task and the report of each pack that is complete.
    encode_one : callable
        Writes one pack, in place of `dtscodec.encode`; for example one that fits packs to samples.

    Returns
    -------
    FamilyReport

    Raises
    ------
    DtsError
        As for `dtscodec.merge` and `dtscodec.encode`.
    ConfigError
        The config has renames.
    OutputError
        The directory is remote, has packs of other tasks, or has files that exist.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> one, two = {"w": torch.zeros(64, 64)}, {"w": torch.ones(64, 64)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = dtscodec.encode_family({"one": one, "two": two}, folder)
    ...     with dtscodec.decode(f"{folder}/packs/two.safetensors") as state:
    ...         float((state["w"] - two["w"]).norm()) < 0.1
    True
    """
    config = config or EncodeConfig()
    chosen = make_method(method) if isinstance(method, str) else method
    if config.renames:
        raise ConfigError("expected no renames, since the base of a family has the names of its fine-tunes, got some")
    check_directory(out)
    family = _Family(fine_tunes, as_path(out), chosen, base, config, grams, plain_base, force, journal, progress)
    # Refuse existing outputs before any work.
    family.check_new()
    with (
        open_pack_directory(family.directory),
        directory_rollback(
            family.directory,
            is_resumed=journal is not None and journal.was_found,
            will_resume=lambda error: journal is not None and journal.outlives(error),
        ) as added,
    ):
        # Removed if the call fails and will not be resumed.
        added += [family.base, family.directory / INDEX_NAME, *family.packs.values()]
        # Merge the base, unless an interrupted run has.
        report, figures = family.make_base(added)
        if report is not None:
            on_base(report)
        # Encode each fine-tune against it.
        packs = encode_all(
            family.base,
            fine_tunes,
            family.directory,
            config,
            force=force,
            executor=executor,
            journal=journal,
            progress=progress,
            on_pack=on_pack,
            figures=figures,
            encode_one=encode_one,
        )
    return FamilyReport(family.directory, report, packs)


def check_directory(out: str | os.PathLike[str]) -> None:
    """Raise OutputError if a directory is remote."""
    if is_remote(out):
        raise OutputError(f"{out}: expected a local directory for a merged base", Remedy("copy it afterwards"))


@dataclass(frozen=True, slots=True)
class _Family:
    """The arguments of one call of `encode_family`."""

    fine_tunes: Mapping[str, Source]
    directory: Path
    method: MergeMethod
    pretrained: "Source | None"
    config: EncodeConfig
    grams: Sequence[Source]
    is_plain: bool
    force: bool
    journal: Journal | None
    progress: ProgressOf

    @property
    def base(self) -> Path:
        return self.directory / BASE_NAME

    @property
    def packs(self) -> dict[str, Path]:
        """Paths of the packs, by task."""
        return {task: pack_path(self.directory, task) for task in self.fine_tunes}

    def check_new(self) -> None:
        """Raise OutputError if packs of another base exist, or packs of these tasks unless a run is resumed."""
        if self.journal is None or not self.journal.was_found:
            for path in self.packs.values():
                check_new(path, self.force)
        index = read_directory_index(self.directory)
        # Packs of other tasks refer to the base that would be replaced.
        if others := sorted(index.packs.keys() - self.fine_tunes.keys()) if index else []:
            raise OutputError(
                f"{self.directory}: expected no packs of another base, got {others[0]!r}",
                Remedy("merge all its tasks, or choose another output ({out})"),
            )

    def make_base(self, added: list[Path]) -> tuple[MergeReport | None, dict[str, dict[str, float]]]:
        """Make the base unless an interrupted run has; return its report, and distances for the directory's index."""
        known = self._begin()
        if known and self.base.exists():
            return None, known
        with self.progress("base", bytes_to_read(self.method, self.fine_tunes.values())) as progress:
            report = make_base(
                self.directory,
                self.fine_tunes,
                self.method,
                self.pretrained,
                raw=self.config.raw,
                grams=self.grams,
                plain=self.is_plain,
                files=self.config.files,
                force=self.force,
                device=self.config.device,
                dequantize_base=self.config.dequantize_base,
                added=added,
                progress=progress,
            )
        figures = figures_of(report.distances, list(self.fine_tunes))
        if self.journal is not None:
            self.journal.finish(figures)
        return report, figures

    def _begin(self) -> dict[str, dict[str, float]] | None:
        """Begin the base in the journal; return the distances if an interrupted run has made the base."""
        if self.journal is None:
            return None
        key = key_of_base(
            self.base,
            self.fine_tunes,
            self.method,
            self.pretrained,
            raw=self.config.raw,
            grams=self.grams,
            plain=self.is_plain,
            dequantize_base=self.config.dequantize_base,
        )
        return self.journal.begin(lambda: key)
