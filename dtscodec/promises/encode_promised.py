"""Checkpoint + samples + bound -> the smallest pack that was found to keep the bound, with a claim about it."""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dtscodec.calibration.fit import FitReport
from dtscodec.calibration.fit_settings import BATCH_TOKENS, STEPS
from dtscodec.calibration.recode import recode
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import as_checkpoint
from dtscodec.encoding.config import DEFAULT_SIZE, Best, EncodeConfig
from dtscodec.encoding.encode import encode
from dtscodec.encoding.encode_all import ProgressOf, no_bar
from dtscodec.encoding.journal import Journal, NoJournal
from dtscodec.encoding.pack_assembler import PackAssembler
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.targets import Size
from dtscodec.errors import ConfigError, Remedy, SamplesError
from dtscodec.evaluation.architecture import model_directory, read_architecture
from dtscodec.evaluation.prediction_sums import PredictionSums
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.format.claim import Claim
from dtscodec.packs.pack import Pack
from dtscodec.promises.bounds import Bound, predicted_shortfall
from dtscodec.promises.outcomes import claim_of, not_kept
from dtscodec.promises.size_search import SizeSearch
from dtscodec.promises.splits import Splits, split_samples
from dtscodec.promises.trials import Trial, Trials
from dtscodec.storage.open_file import Access, check_new, staging_folder_for
from dtscodec.storage.paths import as_output_path

ROUNDS = (0.96, 1.0), (0.99, 2.5)
"""Confidence of each measurement, and the standard errors between the parts of the samples that its pack allows for.

At most two packs are measured. The chances that a measurement is wrong add up to 5 %.
"""


@dataclass(frozen=True, slots=True)
class PromisedPack:
    """A pack that keeps a promise.

    Parameters
    ----------
    encoded : EncodeReport
        The report on the pack; its relative error is that before the fit.
    fitted : FitReport or None
        The report on the fit; None if no tensor is coded.
    claim : Claim
        The claim in the pack's summary.
    trials : tuple of Trial
        The packs that were tried: those without a fit, then the fitted ones. Their files are gone.
    measurements : int
        Number of packs that were measured.
    """

    encoded: EncodeReport
    fitted: FitReport | None
    claim: Claim
    trials: tuple[Trial, ...]
    measurements: int


def encode_promised(
    base: "Source | Base",
    fine_tune: Source,
    out: "str | Path",
    bound: Bound,
    config: EncodeConfig | None = None,
    *,
    samples: "str | Path",
    model: "str | Path | None" = None,
    steps: int = STEPS,
    elements: bool = True,
    batch_size: int = 16,
    batch_tokens: int = BATCH_TOKENS,
    device: str = "cpu",
    offload: bool | None = None,
    task: str | None = None,
    force: bool = False,
    executor: Executor | None = None,
    journal: Journal | None = None,
    progress: ProgressOf = no_bar,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> PromisedPack:
    """Write the smallest calibrated pack that is found to keep a bound on KL or agreement, and claim it in the pack.

    The samples are split by the digests of their contents: packs of several sizes are fitted to the first part, the
    size is chosen on the second, and the pack is measured on the third. The bound is kept if the one-sided 95 %
    confidence limit of the mean over predictions there meets it, with samples as independent units. Each pack is
    measured once. If the first measurement fails by chance, a larger pack, chosen on the second part again, is measured
    as the last one. The chance that one of both is wrong is 5 % (4 % and 1 %, by Bonferroni).

    Parameters
    ----------
    base : path, mapping of tensors, or Base
        The base checkpoint.
    fine_tune : path or mapping of tensors
        The fine-tune: a model directory, or weights only together with `model`.
    out : path
        The pack, in local or remote storage; its directory must exist.
    bound : MaxKl or MinAgreement
        The promise.
    config : EncodeConfig, optional
        Settings of the preset `best`. A target `Size` is the largest size; by default that is the fine-tune's own.
    samples : path
        A file of texts or a folder of images, as for `dtscodec.compare_behaviour`; labels are not used. At least 32
        different ones must be in the part to measure on, which is 40 % of all; some 200 or more give small packs.
    model, steps, elements, batch_size, batch_tokens, device, offload
        As for `dtscodec.fit`.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    executor : concurrent.futures.Executor, optional
        Its workers encode tensors, as for `dtscodec.encode`.
    journal : Journal, optional
        Stores results, so that the same call resumes an interrupted one.
    progress : callable
        Called with name and length of each step of the search, in bytes, gradient steps or samples. Returns a context
        manager that yields a callback for progress in it.
    on_trial : callable
        Called with each trial when it is done.

    Raises
    ------
    PromiseError
        No pack of the sizes that are allowed was found to keep the bound. Nothing is written.
    SamplesError, CheckpointError, BackendError
        As for `dtscodec.fit`; or there are too few samples.
    ConfigError, BaseMismatchError, EncodeError, OutputError
        As for `dtscodec.encode`; or the target is not a size, or the preset not `best`.
    """
    start = time.perf_counter()
    out, config = as_output_path(out), config or EncodeConfig()
    if not isinstance(config.preset, Best) or not isinstance(config.target, Size | None):
        raise ConfigError(f"expected the preset best and no target but a size beside {bound}, got others")
    if config.exact:
        remedy = Remedy("add a residual layer to the promised pack with dtscodec.add_residual")
        raise ConfigError("expected settings without a residual layer beside a bound, got exact ones", remedy)
    if journal is None or not len(journal):
        check_new(out, force)
    directory = model_directory(model, fine_tune)
    prepared = prepare_samples(read_architecture(directory), Path(samples))
    with (
        tempfile.TemporaryDirectory() as folder,
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True), config.dequantize_base) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as checkpoint,
    ):
        splits = split_samples(prepared, str(samples), Path(folder))
        settings = {
            "steps": steps,
            "elements": elements,
            "batch_size": batch_size,
            "batch_tokens": batch_tokens,
            "device": device,
        }
        trials = Trials(
            base=opened,
            checkpoint=checkpoint,
            fine_tune=fine_tune,
            model=directory,
            config=config,
            splits=splits,
            settings=settings,
            offload=offload,
            encode=partial(encode, opened, checkpoint, task=task, executor=executor),
            folder=Path(folder),
            journal=NoJournal() if journal is None else journal,
            progress=progress,
            on_trial=on_trial,
        )
        search = _search(bound, config, checkpoint)
        chosen, claim, measurements = _kept(trials, bound, splits, search)
        with Pack(chosen.pack) as pack, PackAssembler(out, pack.reader.numbers_dtype, force=force) as assembler:
            written = recode(assembler, pack, {}, claim=claim)
        encoded = replace(
            trials.encodes[chosen.size],
            path=out,
            pack_id=written.pack_id,
            pack_bytes=written.pack_bytes,
            seconds=time.perf_counter() - start,
        )
        fitted = trials.fits[chosen.size]
    return PromisedPack(encoded, fitted and replace(fitted, path=out), claim, trials.all, measurements)


def _search(bound: Bound, config: EncodeConfig, checkpoint: Checkpoint) -> SizeSearch:
    """Return the search between the smallest size and the target or the fine-tune's own size."""
    specs = checkpoint.specs.values()
    whole, elements = sum(spec.nbytes for spec in specs), sum(spec.elements for spec in specs)
    most = config.target.in_bytes(whole, elements) if isinstance(config.target, Size) else whole
    start = min(most, DEFAULT_SIZE.in_bytes(whole, elements))
    return SizeSearch(max(1, start), max(1, most), bound.usual_slope, bound.usual_gain)


def _kept(trials: Trials, bound: Bound, splits: Splits, search: SizeSearch) -> tuple[Trial, Claim, int]:
    """Return the first pack that is measured to keep the bound, the claim, and the number of measurements."""
    measured: dict[int, float] = {}
    for confidence, margin in ROUNDS:

        def ratio(trial: Trial, confidence: float = confidence, margin: float = margin) -> float:
            _check_provable(bound, trial.samples, splits.measured)
            shortfall = predicted_shortfall(bound, trial.samples, splits.measured, confidence, margin)
            return shortfall / bound.most

        # The size depends on the samples to choose on alone, and on whether the first measurement failed. So the
        # second pack is as good as fixed before any measurement, and both chances of an error add up.
        known = {size: ratio(trial) for size, trial in trials.all_fitted.items()}
        size, expected = search.run(lambda at: ratio(trials.plain(at)), lambda at: ratio(trials.fitted(at)), known)
        chosen = trials.fitted(size)
        is_hopeless = bound.shortfall(bound.figure(chosen.samples)) > bound.most
        if size in measured or (expected > 1 and is_hopeless):
            break
        found = trials.compare(chosen.pack, splits.measure)
        limit = bound.limit(found, confidence)
        measured[size] = limit
        if bound.shortfall(limit) <= bound.most:
            return chosen, claim_of(bound, found, limit, splits.digest), len(measured)
    raise not_kept(bound, chosen, measured, search)


def _check_provable(bound: Bound, samples: Sequence[PredictionSums], measured: int) -> None:
    """Raise SamplesError if even a pack that equals the fine-tune could not be measured to keep the bound."""
    perfect = [replace(sums, kl=0.0, agreed=sums.predictions) for sums in samples]
    limit = predicted_shortfall(bound, perfect, measured, ROUNDS[0][0], 0.0)
    if limit > bound.most:
        detail = f"expected enough samples to measure {bound}, got {measured}, on which complete agreement would not do"
        raise SamplesError(f"promise: {detail}", Remedy("give more samples"))
