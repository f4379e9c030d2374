"""Checkpoint + samples -> pack file: a fine-tune is encoded, and its pack fitted to the fine-tune's outputs."""

import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dtscodec.calibration.fit import FitReport, fit
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.calibration.fit_settings import BATCH_TOKENS, STEPS, FitSettings
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import as_checkpoint
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encode import encode
from dtscodec.encoding.encode_front import holds_pack
from dtscodec.encoding.journal import Journal, NoJournal
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.residual.encode_exact import add_residual
from dtscodec.errors import NothingToFitError
from dtscodec.evaluation.architecture import model_directory, read_architecture
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, check_new, new_file, staging_folder_for
from dtscodec.storage.paths import as_output_path


def encode_calibrated(
    base: "Source | Base",
    fine_tune: Source,
    out: "str | Path",
    config: EncodeConfig | None = None,
    *,
    samples: "str | Path",
    model: "str | Path | None" = None,
    steps: int = STEPS,
    codes: bool = True,
    elements: bool = True,
    bias_correction: bool = False,
    batch_size: int = 16,
    batch_tokens: int = BATCH_TOKENS,
    device: str = "cpu",
    offload: bool | None = None,
    task: str | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
    fit_progress: ProgressCallback = no_progress,
    executor: Executor | None = None,
    journal: Journal | None = None,
) -> tuple[EncodeReport, FitReport | None]:
    """Encode a fine-tune, and fit the pack to the fine-tune's outputs on samples before it is written.

    This is `dtscodec.encode` with settings that store biases and norms for the fit, then `dtscodec.fit`. The pack is as
    large as one without the fit, and only the fitted pack appears at `out`. If no tensor is coded, there are no numbers
    to fit, and the pack is the one that `dtscodec.encode` writes.

    Parameters
    ----------
    base : path, mapping of tensors, or Base
        The base checkpoint. A `Base` is hashed once for several fine-tunes.
    fine_tune : path or mapping of tensors
        The fine-tune: a model directory, or weights only together with `model`.
    out : path
        The pack, in local or remote storage; its directory must exist.
    config : EncodeConfig, optional
        Settings of the encoder.
    samples : path
        A file of texts or a folder of images, as for `dtscodec.compare_behaviour`; labels are not used. 64 are enough.
    model, steps, codes, elements, bias_correction, batch_size, batch_tokens, device, offload
        As for `dtscodec.fit`. The encoder's device is that of `config`.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the bytes of each tensor that is encoded, as by `dtscodec.encode`.
    fit_progress : callable
        Called with 0 when the encode is complete, then with 1 after each step of the fit.
    executor : concurrent.futures.Executor, optional
        Its workers encode tensors, as for `dtscodec.encode`. The fit runs in this process.
    journal : Journal, optional
        Stores results, so that the same call resumes an interrupted one. A pack that an earlier run has fitted and
        written is not fitted again. The state of a fit is in a file of its own next to it, which ends in ``.fit``.

    Returns
    -------
    encoded : EncodeReport
        The report on the pack; its relative error is that before the fit.
    fitted : FitReport or None
        The report on the fit; None if no tensor is coded.

    Raises
    ------
    SamplesError, CheckpointError, BackendError
        As for `dtscodec.fit`. Samples that the model does not take are reported before the encode.
    ConfigError, BaseMismatchError, EncodeError, OutputError
        As for `dtscodec.encode`.
    """
    out, config = as_output_path(out), config or EncodeConfig()
    if journal is None or not len(journal):
        check_new(out, force)
    if config.exact:
        again = partial(
            encode_calibrated,
            base,
            fine_tune,
            samples=samples,
            model=model,
            steps=steps,
            codes=codes,
            elements=elements,
            bias_correction=bias_correction,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            device=device,
            offload=offload,
            task=task,
            progress=progress,
            fit_progress=fit_progress,
            executor=executor,
            journal=journal,
        )
        return _add_residual(again, base, fine_tune, out, config, force)
    # Errors in samples are raised here, before the encode, which takes longer.
    prepare_samples(read_architecture(model_directory(model, fine_tune)), Path(samples))
    settings = FitSettings(
        str(samples),
        None if model is None else str(model),
        steps,
        codes,
        elements,
        bias_correction,
        batch_size,
        batch_tokens,
        device,
        offload,
    )
    with (
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True), config.dequantize_base) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as checkpoint,
        tempfile.TemporaryDirectory() as folder,
    ):
        run = partial(encode, opened, checkpoint, task=task, executor=executor, journal=journal)
        # Into a temporary folder: only the fitted pack appears at `out`.
        encoded = run(Path(folder, "pack.safetensors"), config.for_fitting(), force=True, progress=progress)
        fit_progress(0)
        try:
            fitted = _fit_or_resume(
                encoded.path,
                fine_tune,
                out,
                opened,
                settings,
                force=force,
                progress=fit_progress,
                journal=NoJournal() if journal is None else journal,
            )
        except NothingToFitError:
            # Nothing to fit: encode again, with the settings of a plain pack.
            plain = run(out, config, force=force)
            return replace(plain, seconds=encoded.seconds + plain.seconds), None
    # Errors are those of the encode; size and id are those of the fitted pack.
    report = replace(
        encoded,
        path=out,
        pack_id=fitted.pack_id,
        pack_bytes=fitted.pack_bytes,
        seconds=encoded.seconds + fitted.seconds,
    )
    return report, fitted


def _add_residual(
    calibrate: Callable[..., tuple[EncodeReport, FitReport | None]],
    base: "Source | Base",
    fine_tune: Source,
    out: Path,
    config: EncodeConfig,
    force: bool,
) -> tuple[EncodeReport, FitReport | None]:
    """Write a calibrated pack with a residual layer: first one without, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        encoded, fitted = calibrate(Path(folder, "fitted.safetensors"), config.without_residual())
        whole = add_residual(encoded.path, base, fine_tune, out, force=force)
    return encoded.with_residual(whole), fitted and replace(fitted, path=out)


def _fit_or_resume(
    pack: Path,
    fine_tune: Source,
    out: Path,
    base: Base,
    settings: FitSettings,
    *,
    force: bool,
    progress: ProgressCallback,
    journal: Journal | NoJournal,
) -> FitReport:
    """Fit a pack and write it to `out`, unless an earlier run has by the journal, and its pack still exists."""
    step, name = f"fit {settings}", str(fine_tune)
    recorded = next(journal.stored(step, [name]), None)
    if recorded and holds_pack(out, recorded["pack_id"]):
        return _report_of(recorded, out)
    fitted = fit(
        pack,
        fine_tune,
        pack.with_name("fitted.safetensors"),
        base,
        **asdict(settings),
        checkpoint=None if isinstance(journal, NoJournal) else f"{journal.path}.fit",
        progress=progress,
    )
    # The journal comes first: a run that finds the pack there then finds its report, too.
    if not recorded:
        journal.store(step, name, _record_of(fitted))
    with new_file(out, force) as file:
        file.write(fitted.path.read_bytes())
    return replace(fitted, path=out)


def _record_of(report: FitReport) -> dict[str, Any]:
    """Return a report without its path, as the journal stores it; the inverse of `_report_of`."""
    return {name: value for name, value in asdict(report).items() if name != "path"}


def _report_of(record: dict[str, Any], path: Path) -> FitReport:
    """Return the report of a record; the inverse of `_record_of`."""
    losses = {name: FitLoss(**record[name]) for name in ("before", "after")}
    return FitReport(path=path, **(record | losses))
