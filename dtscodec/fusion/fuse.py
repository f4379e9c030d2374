"""Packs of several tasks -> the pack of an unseen task, without training (arXiv 2512.01461)."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.encoding.budget.candidate import NUMBERS
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.pack_assembler import PackAssembler
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.targets import MaxError, Size
from dtscodec.errors import ConfigError
from dtscodec.fusion.fused_pack import FusionEncoder
from dtscodec.fusion.heads import Head, HeadSource
from dtscodec.fusion.mixing_weights import HeadSimilarity, VectorSimilarity, find_weights
from dtscodec.fusion.source_packs import SourcePacks
from dtscodec.linalg.devices import one_thread
from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import check_new
from dtscodec.storage.paths import as_output_path


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseReport(EncodeReport):
    """The result of `fuse`: an `EncodeReport` with errors and shares relative to the weighted sum of the deltas.

    Parameters
    ----------
    tasks : tuple of str
        Tasks of the source packs.
    weights : tuple of float
        Mixing weights, one for each source pack.
    similarities : tuple of float, optional
        Cosines that the weights were computed from; None if weights were given.
    head : tuple of str
        Names of the unseen task's own tensors, stored exactly.
    """

    tasks: tuple[str, ...]
    weights: tuple[float, ...]
    similarities: tuple[float, ...] | None
    head: tuple[str, ...]


def fuse(
    packs: Sequence[PackSource],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    like: "HeadSource | HeadSimilarity | VectorSimilarity | None" = None,
    head: "HeadSource | None" = None,
    base: "Source | Base | None" = None,
    target: Size | MaxError | None = None,
    task: str | None = None,
    files: bool = True,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> FuseReport:
    """Write the pack of an unseen task: its delta is a weighted sum of the deltas of other tasks' packs.

    If the weights add up to 1 and the packs are lossless, the fused pack decodes to the weighted mean of the
    fine-tunes, whatever their base. Deltas of low rank are summed by their factors: these are concatenated,
    decomposed again and encoded, and never multiplied out.

    Parameters
    ----------
    packs : sequence of paths, bytes or Packs
        The source packs, all against one base.
    out : path
        The pack, in local or remote storage; its directory must exist.
    weights : sequence of float, optional
        Mixing weights, one for each pack. By default they are computed from `like`: the cosine of each task's vector to
        the unseen task's, divided by the sum of all cosines; negative cosines count as 0.
    like : path, mapping of tensors, Checkpoint or Pack, optional
        The unseen task: a checkpoint, pack or file with its head. The head is compared with the packs' own, and is
        stored exactly in the fused pack. A `dtscodec.fusion.HeadSimilarity` has settings for the comparison; a
        `dtscodec.fusion.VectorSimilarity` compares other vectors in place of heads.
    head : path, mapping of tensors, Checkpoint or Pack, optional
        The head to store, if it is not that of `like`.
    base : path, mapping of tensors, or Base, optional
        The packs' base; by default it is searched where `decode` searches. It is read only if a pack stores exactly a
        tensor that the base has, if packs use different tensors of it, or if a head that is compared is stored as a
        delta.
    target : Size or MaxError, optional
        Largest pack file, or largest relative error of the summed delta; by default 0.08 bits per parameter plus the
        tensors that are stored exactly.
    task : str, optional
        A short name, stored in the pack.
    files : bool
        Store configuration and tokenizer files: those of the head's directory or pack, else those of the pack with the
        largest weight.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the bytes of each tensor in each of two passes: survey and encode.

    Raises
    ------
    ConfigError
        Weights cannot be computed, or arguments exclude each other.
    EncodeError
        The packs are of different architectures, their heads differ and none is given, or the size is too small.
    BaseMismatchError
        The packs are against different bases, or the base is needed, and is missing or not theirs.
    CheckpointError, FormatError
        An input cannot be read.
    OutputError
        The pack cannot be written, or exists.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> ramp, ones = torch.linspace(-1, 1, 64), torch.ones(64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one = dtscodec.encode(base, {"w": torch.outer(ramp, ones)}, f"{folder}/one").path
    ...     two = dtscodec.encode(base, {"w": torch.outer(ones, ramp)}, f"{folder}/two").path
    ...     report = dtscodec.fuse([one, two], f"{folder}/both", weights=[0.5, 0.5], target=dtscodec.Size.parse("2kB"))
    ...     with dtscodec.decode(report.path, base) as state:
    ...         float((state["w"] - (torch.outer(ramp, ones) + torch.outer(ones, ramp)) / 2).norm()) < 0.1
    True
    """
    start = time.perf_counter()
    # A path is a sequence of characters, bytes are one of integers: neither is a list of packs.
    if isinstance(packs, (str, bytes, os.PathLike)):
        raise ConfigError("expected a list of packs, got one")
    out = as_output_path(out)
    config = EncodeConfig(target)
    check_new(out, force)
    with ExitStack() as stack, one_thread():
        # Check that the packs have one base, and find their weights.
        sources = SourcePacks([stack.enter_context(as_pack(pack, True)) for pack in packs], base, stack)
        mixing = find_weights(sources, stack, weights, like)
        donor = Head(head, sources, stack) if head is not None else mixing.head
        encoder = FusionEncoder(sources, mixing.weights, donor, config, task, files)
        # First pass: candidate encodings of every summed tensor.
        survey = encoder.survey(progress)
        # Files that are read must not be replaced.
        heads = [opened for opened in (mixing.head, donor) if opened is not None]
        inputs = [*sources.paths(out), *(path for opened in heads for path in opened.paths(out))]
        # Second pass: encode the chosen candidates, tensor by tensor.
        with PackAssembler(out, NUMBERS, force=force, inputs=inputs, start=start, progress=progress) as assembler:
            report = encoder.write(encoder.choose_candidates(survey), assembler)
    return report.extended(
        FuseReport,
        tasks=mixing.tasks,
        weights=mixing.weights,
        similarities=mixing.similarities,
        head=encoder.head_names,
    )
