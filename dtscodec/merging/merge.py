"""Fine-tunes -> a merged checkpoint, one tensor at a time."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtscodec.checkpoints.auxiliary_files import Carried, collect_files
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.write import SHARD_BYTES, is_single_file, write_checkpoint
from dtscodec.errors import OutputError
from dtscodec.merging.alpha_search import Search
from dtscodec.merging.distances import Distances
from dtscodec.merging.merger import FineTune, GramSource, Merger, merging
from dtscodec.merging.methods.registry import Method
from dtscodec.storage.paths import as_place, is_remote


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did.

    Parameters
    ----------
    path : Path
        The checkpoint.
    method : str
        Name and all options; alpha as it was found, if it was searched.
    merged, averaged, copied : tuple of str
        Tensors that the method merged; that the base lacks, so that they are the fine-tunes' mean; that hold no floats,
        and are the first fine-tune's.
    left_out : dict
        Tensors that the result lacks -> why: heads.
    without_inputs : tuple of str
        Of method `esm`, matrices of whose inputs nothing was known, so that the SVD stood in.
    distances : tuple of Distances
        Of each fine-tune, in their order.
    size : int
        Bytes of the result's tensors.
    seconds : float
        Wall time.
    """

    path: Path
    method: str
    merged: tuple[str, ...]
    averaged: tuple[str, ...]
    copied: tuple[str, ...]
    left_out: dict[str, str]
    without_inputs: tuple[str, ...]
    distances: tuple[Distances, ...]
    size: int
    seconds: float


def merge(
    fine_tunes: Sequence[FineTune],
    out: str | os.PathLike[str],
    method: str | Method = "average",
    base: "Source | Base | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[GramSource] = (),
    search: Search | None = None,
    files: bool = True,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda size: None,
) -> MergeReport:
    """Merge fine-tunes of one architecture into one checkpoint.

    Parameters
    ----------
    fine_tunes : sequence of paths, mappings of tensors, or Checkpoints
    out : path
        ``*.safetensors``, ``*.bin``, ``*.pt``: one file. Anything else: a directory in the layout of Hugging Face, with
        the first fine-tune's configuration and tokenizer if that is a directory.
    method : str or Method
        A name (`dtscodec.merging.methods.registry.METHODS`), or a method with options, such as
        ``dtscodec.merging.methods.ties.Ties(keep=0.1)``.
    base : path, mapping of tensors, or Base, optional
        What they are fine-tunes of; every method but `average` needs it.
    raw : sequence of str
        Patterns of names to leave out. What differs in shape is left out anyway.
    grams : sequence of paths, mappings or Grams
        For `esm`, what layers' inputs are like: one per fine-tune, in their order.
    search : Search, optional
        Searches alpha.
    files : bool
        Whether small files are written into a directory.
    shard_bytes : int
        Largest file of tensors in a directory.
    force : bool
        Replace what exists.
    device : str
        Where matrices are decomposed.
    progress : callable
        Told the bytes of fine-tunes that are read; `reads` tells how often all are.

    Raises
    ------
    ConfigError
        The method lacks its base, or arguments that it does not have.
    MergeError
        Fine-tunes of different architectures, too few of them, or NaN or infinity among their weights or the merged
        ones.
    BaseMismatchError
        The base is of another architecture.
    CheckpointError
        A checkpoint or a file of Gram matrices cannot be read.
    OutputError
        The checkpoint cannot be written, or exists. Nothing is left of it.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     out = f"{folder}/base.safetensors"
    ...     report = dtscodec.merge([{"w": torch.zeros(2)}, {"w": torch.ones(2)}], out)
    ...     with dtscodec.Base(out) as merged:
    ...         merged.read("w").view("<f4").tolist()
    [0.5, 0.5]
    """
    if is_remote(out):
        raise OutputError(f"{out}: expected a local path, since only encode writes to remote storage")
    start = time.perf_counter()
    place = as_place(out)
    with merging(fine_tunes, place, method, base, raw=raw, grams=grams, device=device, progress=progress) as merger:
        if search is not None:
            merger.search(search)
        first = merger.tasks.fine_tunes[0]
        write_checkpoint(
            place,
            merger.tasks.specs,
            merger.read,
            metadata=merger.metadata,
            shard_bytes=shard_bytes,
            ties=merger.tasks.ties,
            files=small_files(first) if files and not is_single_file(place) else {},
            force=force,
            inputs=merger.inputs(place),
        )
        return report_of(merger, place, time.perf_counter() - start)


def report_of(merger: Merger, path: Path, seconds: float) -> MergeReport:
    """What was done; all tensors have been read."""
    tasks = merger.tasks
    return MergeReport(
        path,
        merger.text,
        tuple(tasks.merged),
        tuple(tasks.averaged),
        tuple(tasks.copied),
        tasks.left_out,
        merger.without_inputs(),
        merger.distances(),
        sum(spec.nbytes for spec in tasks.specs.values()),
        seconds,
    )


def small_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Configuration and tokenizer of a checkpoint that is a directory."""
    if not checkpoint.is_directory:
        return {}
    found = collect_files(checkpoint.directory, None, checkpoint.weight_files)
    return {file.name: file.data for file in found if isinstance(file, Carried)}
