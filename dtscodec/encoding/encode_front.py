"""Checkpoint -> pack without a residual layer: every tensor against its base, one at a time."""

import time
from concurrent.futures import Executor
from dataclasses import fields
from pathlib import Path

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile
from dtscodec.checkpoints.auxiliary_files import collect_files
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.checkpoints.names.name_matching import match_names
from dtscodec.checkpoints.names.removed_names import removed_names
from dtscodec.checkpoints.open import as_checkpoint, weight_paths
from dtscodec.encoding.budget.allocate import TensorChoices
from dtscodec.encoding.budget.candidate import NUMBERS
from dtscodec.encoding.budget.error_target import smallest_for
from dtscodec.encoding.config import BaseOnly, EncodeConfig, check_patterns
from dtscodec.encoding.counterpart_notes import CounterpartReport, MatchedNames
from dtscodec.encoding.exact_tensors import ExactReport, ExactTensors
from dtscodec.encoding.journal import Journal, NoJournal, journal_key
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata, reference_to
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.passed_over_note import passed_over_notes
from dtscodec.encoding.quantized_inputs import check_quantization, dequantized_notes
from dtscodec.encoding.targets import MaxError, Rank, RankShare, Size
from dtscodec.encoding.tensor_passes import TensorPasses
from dtscodec.errors import DtsError, assert_never
from dtscodec.format.summary import Summary
from dtscodec.linalg.devices import usable_device
from dtscodec.packs.pack import Pack
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, staging_folder_for
from dtscodec.storage.paths import as_output_path
from dtscodec.version import __version__


def encode_front(
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    config: EncodeConfig,
    *,
    task: str | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
    executor: Executor | None = None,
    journal: Journal | None = None,
) -> EncodeReport:
    """Write a pack without a residual layer; arguments, report and errors are those of `dtscodec.encode`."""
    start = time.perf_counter()
    # A missing device is reported before any work.
    usable_device(config.device)
    out = as_output_path(out)
    results = NoJournal() if journal is None else journal
    with (
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True), config.dequantize_base) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as fine,
    ):
        # Match names of the fine-tune with those of the base.
        check_patterns(config.raw, fine.specs)
        check_quantization(opened, fine, config.stores_exactly)
        match = match_names(
            fine.specs,
            opened.specs,
            config.renames,
            fine.aliases,
            opened.made_by is not None,
            removed_names(fine.specs, fine.metadata),
            removed_names(opened.specs, opened.checkpoint.metadata),
        )
        metadata = _metadata(opened, fine, match, config, task)

        # An interrupted run may have finished this pack.
        saved = results.begin(lambda: journal_key((fine, opened.checkpoint), config, match, metadata))
        if saved is not None and holds_pack(out, saved["pack_id"]):
            return EncodeReport(path=out, seconds=time.perf_counter() - start, **saved)

        # Tensors that are exact whatever the budget.
        exact = ExactTensors.of(fine.specs, opened.specs, match, config)
        tensors = TensorPasses(opened, fine, match, config, exact, executor, results)
        # Dtype of norms, levels and scales; the costs of `best` are computed for NUMBERS.
        numbers = NUMBERS if config.is_surveyed else "F32"
        inputs = weight_paths(out, fine, opened.checkpoint)
        with PackAssembler(out, numbers, force=force, inputs=inputs, start=start, progress=progress) as assembler:
            # Survey all tensors, and choose an encoding of each segment; only the preset `best` has a choice.
            choices = _choose(tensors, metadata, config, progress) if config.is_surveyed else None

            # Encode all tensors, and write the pack.
            exact_report = ExactReport(exact)
            matched = MatchedNames(fine.specs, opened.specs, match, config.renames)
            counterparts = CounterpartReport(matched, has_deltas=not isinstance(config.preset, BaseOnly))
            for tensor in tensors.encode(choices):
                assembler.add(tensor)
                exact_report.add(tensor)
                counterparts.add(tensor)
            # The base digest covers only the base tensors that the pack uses.
            reference, leaves = reference_to(opened, tensors.leaves(assembler.used_bases))
            notes = *dequantized_notes(opened, fine.specs, match.bases), *exact_report.notes(), *counterparts.notes()
            metadata = metadata.with_base(reference).with_notes(notes)
            report = assembler.finish(metadata, leaves, exact_report.weight_bytes)
            names = [field.name for field in fields(report) if field.name not in ("path", "seconds")]
            results.finish({name: getattr(report, name) for name in names})
    return report


def holds_pack(out: Path, pack_id: str) -> bool:
    """Return whether a file is a pack with this id.

    Parameters
    ----------
    out : Path
        The file, which need not exist.
    pack_id : str
        SHA-256 as 64 hex digits.
    """
    try:
        with Pack(out.read_bytes()) as pack:
            return pack.id == pack_id
    except (DtsError, OSError):
        return False


def _choose(
    tensors: TensorPasses, metadata: PackMetadata, config: EncodeConfig, progress: ProgressCallback
) -> TensorChoices:
    """Survey all tensors, and choose a candidate encoding for each segment by the target."""
    survey = tensors.survey(progress)
    match config.target:
        case Rank() | RankShare():
            choices = survey.choose_any()
        case MaxError(error=error):
            choices = smallest_for(error, survey, lambda trial: tensors.relative_error(survey.by_tensor(trial)))
        case Size() | None:
            choices = survey.choose(metadata, survey.budget(metadata))
        case _:
            assert_never(config.target)
    return survey.by_tensor(choices)


def _metadata(base: Base, fine: Checkpoint, match: NameMatch, config: EncodeConfig, task: str | None) -> PackMetadata:
    """Return everything except the tensors, with zeros for the base digest, which is not known before the end."""
    encoder = f"dtscodec {__version__} {config.describe()}" + (f"; base: {base.made_by}" if base.made_by else "")
    has_counterparts = any(match.bases(name) for name in match.counterpart)
    # The digest has a fixed length, so the size of the file can be planned with zeros in its place.
    placeholder = base.reference(bytes(32)) if has_counterparts else None
    summary = Summary(task=task, encoder=encoder, tensors=0, base=placeholder)
    return PackMetadata(
        summary,
        match.prefix,
        match.absent,
        fine.metadata,
        _auxiliary_files(base, fine, config),
        stem=fine.stem,
        folders=fine.folders,
        notes=passed_over_notes({"base": base.checkpoint, "fine-tune": fine}),
    )


def _auxiliary_files(base: Base, fine: Checkpoint, config: EncodeConfig) -> list[AuxiliaryFile]:
    """Return the auxiliary files of a fine-tune that is a directory."""
    if config.files and isinstance(fine, PackedCheckpoint):
        return fine.auxiliary_files()
    if not (config.files and fine.is_directory):
        return []
    return list(collect_files(fine.directory, base.checkpoint.directory, fine.weight_files))
