"""Fine-tunes -> a merged checkpoint, one tensor at a time."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtscodec.checkpoints.auxiliary_file import Carried
from dtscodec.checkpoints.auxiliary_files import collect_files
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import as_checkpoint
from dtscodec.checkpoints.write import SHARD_BYTES, is_single_file, write_checkpoint
from dtscodec.encoding.notes import Note
from dtscodec.encoding.passed_over_note import passed_over_notes
from dtscodec.errors import OutputError
from dtscodec.merging.alpha_search import AlphaSearch
from dtscodec.merging.distances import Distances
from dtscodec.merging.merger import FineTune, GramSource, Merger, open_merger
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.merging.quantized_fine_tunes import copied_notes
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.paths import as_path, is_remote


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The result of a merge.

    Parameters
    ----------
    path : Path
        The checkpoint.
    method : str
        Name and all options of the method; alpha as found, if it was searched.
    merged : tuple of str
        Tensors that the method merged.
    averaged : tuple of str
        Tensors that the base lacks: means of the fine-tunes.
    copied : tuple of str
        Integer tensors, copied from the first fine-tune.
    left_out : dict
        Reasons why tensors, such as heads, are not in the result, by name.
    without_grams : tuple of str
        For a method that takes Gram matrices, the weights without one, which were merged by their SVD.
    distances : tuple of Distances
        Distances of each fine-tune, in their order.
    size : int
        Bytes of the merged tensors.
    seconds : float
        Wall time.
    notes : tuple of Note
        Quantized weights, which are not merged, and files that hold weights but were not read, and why.
    """

    path: Path
    method: str
    merged: tuple[str, ...]
    averaged: tuple[str, ...]
    copied: tuple[str, ...]
    left_out: dict[str, str]
    without_grams: tuple[str, ...]
    distances: tuple[Distances, ...]
    size: int
    seconds: float
    notes: tuple[Note, ...] = ()


def merge(
    fine_tunes: Sequence[FineTune],
    out: str | os.PathLike[str],
    method: str | MergeMethod = "average",
    base: "Source | Base | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[GramSource] = (),
    search: AlphaSearch | None = None,
    files: bool = True,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    device: str = "cpu",
    dequantize_base: bool = False,
    progress: ProgressCallback = no_progress,
) -> MergeReport:
    """Merge fine-tunes of one architecture into one checkpoint.

    Parameters
    ----------
    fine_tunes : sequence of paths, mappings of tensors, or Checkpoints
        In the order of `grams`.
    out : path
        One file if the name ends in ``.safetensors``, ``.bin`` or ``.pt``. Else a directory in the layout of Hugging
        Face, with configuration and tokenizer files of the first fine-tune if that is a directory.
    method : str or MergeMethod
        A name (`dtscodec.merging.methods.registry.METHODS`), or a method with options, such as
        ``dtscodec.merging.methods.Ties(keep=0.1)``.
    base : path, mapping of tensors, or Base, optional
        The pre-trained base of the fine-tunes; every method but `average` needs it.
    raw : sequence of str
        Patterns of names of tensors to leave out, in addition to tensors whose shapes differ.
    grams : sequence of paths, mappings or GramFile
        Gram matrices of the layers' inputs (`dtscodec collect`), one per fine-tune; used by `esm`.
    search : AlphaSearch, optional
        Search alpha by a score.
    files : bool
        Write configuration and tokenizer files into a directory.
    shard_bytes : int
        Bytes of the largest file of tensors in a directory.
    force : bool
        Replace an output that exists.
    device : str
        Device to decompose matrices on, such as ``"cuda"``.
    dequantize_base : bool
        Read the weights of a quantized base dequantized, for fine-tunes in 16 or 32 bits; see `Base`.
    progress : callable
        Called with the bytes of fine-tunes that have been read; `MergeMethod.reads` is how often all are.

    Returns
    -------
    MergeReport

    Raises
    ------
    ConfigError
        The method needs a base and none is given, or it takes no Gram matrices or alpha and some are given.
    MergeError
        The fine-tunes are of different architectures or too few, or they or the merged weights contain NaN or infinity,
        or only one of base and fine-tunes is quantized.
    BaseMismatchError
        The base is of another architecture.
    CheckpointError
        A checkpoint or a file of Gram matrices cannot be read.
    OutputError
        The checkpoint cannot be written, or exists. No partial output is left.

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
        raise OutputError(f"{out}: expected a local path for a merged checkpoint")
    start = time.perf_counter()
    place = as_path(out)
    with open_merger(
        *(fine_tunes, place, method, base),
        raw=raw,
        grams=grams,
        device=device,
        dequantize_base=dequantize_base,
        progress=progress,
    ) as merger:
        # Search alpha first; then each tensor is merged when it is written.
        if search is not None:
            merger.search(search)
        first = merger.inputs.fine_tunes[0]
        write_checkpoint(
            place,
            merger.inputs.specs,
            merger.read,
            metadata=merger.metadata,
            shard_bytes=shard_bytes,
            ties=merger.inputs.ties,
            files=auxiliary_file_data(first) if files and not is_single_file(place) else {},
            stem=first.stem,
            folders=first.folders,
            force=force,
            inputs=merger.paths(place),
        )
        return report_of(merger, place, time.perf_counter() - start)


def bytes_to_read(method: MergeMethod, fine_tunes: Iterable[FineTune]) -> int:
    """Return the bytes of fine-tunes that a merge reads and reports as progress.

    Parameters
    ----------
    method : MergeMethod
        How they are merged; it may read all several times.
    fine_tunes : iterable of paths, mappings of tensors, or Checkpoints
        The fine-tunes; only their headers are read here.

    Raises
    ------
    CheckpointError
        A fine-tune cannot be read.
    """
    total = 0
    for fine_tune in fine_tunes:
        with as_checkpoint(fine_tune) as opened:
            total += sum(spec.nbytes for spec in opened.specs.values())
    return method.reads * total


def report_of(merger: Merger, path: Path, seconds: float) -> MergeReport:
    """Return the report of a merge, after all its tensors have been read.

    Parameters
    ----------
    merger : Merger
        The merge.
    path : Path
        The checkpoint.
    seconds : float
        Wall time.
    """
    inputs = merger.inputs
    roles = {f"fine-tune {fine.directory}": fine for fine in inputs.fine_tunes}
    roles |= {} if inputs.base is None else {"base": inputs.base}
    return MergeReport(
        path,
        merger.method.describe(),
        tuple(inputs.merged),
        tuple(inputs.averaged),
        tuple(inputs.copied),
        inputs.left_out,
        merger.without_grams(),
        merger.distances(),
        sum(spec.nbytes for spec in inputs.specs.values()),
        seconds,
        (*copied_notes(inputs), *passed_over_notes(roles)),
    )


def auxiliary_file_data(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return a checkpoint's configuration and tokenizer files by name; none unless it is a directory."""
    if not checkpoint.is_directory:
        return {}
    found = collect_files(checkpoint.directory, None, checkpoint.weight_files)
    return {file.name: file.data for file in found if isinstance(file, Carried)}
