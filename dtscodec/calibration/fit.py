"""Pack + samples -> pack with numbers that are fitted to the fine-tune's outputs, by knowledge distillation.

Gradient descent adjusts levels, scales and codes of matrices, and the elements of biases and norms, which are quantized
again, until the decoded model's outputs are near the fine-tune's. The loss is
KL(fine-tune || decoded) of the predictions plus, averaged over layers, the relative squared difference of hidden
states. BitDelta (arXiv 2402.10193) fits its scales to logits alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from dtscodec.calibration.bias_correction import biased_layers, correct_biases, mean_outputs
from dtscodec.calibration.distillation import Distillation, mean_loss
from dtscodec.calibration.fit_checkpoint import FitCheckpoint, fit_key
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.calibration.fit_models import load_student, load_teacher, must_offload
from dtscodec.calibration.fit_parameters import all_parameters
from dtscodec.calibration.fit_settings import BATCH_TOKENS, STEPS
from dtscodec.calibration.optimize import optimize
from dtscodec.calibration.precision import Precision
from dtscodec.calibration.recode import recode
from dtscodec.calibration.stored_outputs import StoredOutputs
from dtscodec.calibration.teacher import Teacher
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.decoding.decode import decode
from dtscodec.encoding.config import DISTILLED
from dtscodec.encoding.pack_assembler import PackAssembler
from dtscodec.encoding.pack_report import PackReport
from dtscodec.evaluation.architecture import model_directory, read_architecture
from dtscodec.evaluation.offloaded_model import read_tensor
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.evaluation.transformers_library import quiet_transformers
from dtscodec.format.streams import Streams
from dtscodec.packs.pack import Pack, PackSource
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import WHOLE, check_new
from dtscodec.storage.paths import as_output_path


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport(PackReport):
    """The report on a pack that was fitted.

    Parameters
    ----------
    samples : int
        Number of calibration samples.
    truncated : int
        Number of texts of which only the first tokens were used.
    numbers : int
        Number of levels, scales, codes and elements that gradient descent adjusted.
    offloaded : bool
        Whether one layer of each model was in memory at a time.
    before, after : FitLoss
        Losses on the calibration samples, or on some of them if there are many. On other samples the improvement is
        smaller.

    Other parameters are those of `PackReport`.
    """

    samples: int
    truncated: int
    numbers: int
    offloaded: bool
    before: FitLoss
    after: FitLoss


def fit(
    pack: PackSource,
    fine_tune: Source,
    out: "str | Path",
    base: "Source | Base | None" = None,
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
    force: bool = False,
    checkpoint: "str | Path | None" = None,
    progress: ProgressCallback = no_progress,
) -> FitReport:
    """Fit a pack's levels, scales and codes, biases and norms to its fine-tune's outputs on samples.

    The size changes only by the word about the fit in the summary. If the fit does not lower the loss on these samples,
    the numbers do not change either.

    The fine-tune and the decoded model are in memory together, unless they are offloaded: in bfloat16 if they are
    stored so and the device multiplies in it, else in float32. Memory depends on `batch_tokens`, neither on the number
    of samples nor on the vocabulary, unless a model changes its logits after the output layer. Needs the package
    transformers.

    `dtscodec.encode_calibrated` encodes and fits in one call.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack.
    fine_tune : path or mapping of tensors
        The checkpoint that it was made from.
    out : path
        The fitted pack.
    base : path, mapping of tensors, or Base, optional
        As for `dtscodec.decode`.
    samples : path
        A file of texts or a folder of images, as for `dtscodec.compare_behaviour`; labels are not used. 64 are enough.
    model : path, optional
        The directory of configuration, and tokenizer or image processor; by default the fine-tune's own.
    steps : int
        Number of gradient steps, each on one batch; 0 to correct biases only.
    codes : bool
        Fit the codes of matrices, too.
    elements : bool
        Fit biases and norms element by element, too, rather than levels and scales alone.
    bias_correction : bool
        First correct biases so that each layer's mean output equals the fine-tune's.
    batch_size : int
        Largest number of samples in a batch.
    batch_tokens : int
        Largest number of tokens in a batch of texts, with padding. Longer texts are truncated to it.
    device : str
        The device that the models run on, such as ``"cuda"``.
    offload : bool, optional
        Have one layer of each model in memory at a time, rather than whole models. Layers are read again in each step,
        from files if the checkpoints are files; the result is the same. By default this is done for transformers that
        do not fit into the memory that is available.
    force : bool
        Replace a file that exists.
    checkpoint : path, optional
        A file for the state of the fit, which is written from time to time: the same call resumes an interrupted one,
        with the same result. It is removed when the pack is written.
    progress : callable
        Called with 1 after each step, and at once with the number of steps that an interrupted run has made.

    Returns
    -------
    FitReport
        Losses before and after, size and time.

    Raises
    ------
    SamplesError, BackendError
        As for `dtscodec.compare_behaviour`.
    CheckpointError
        As for `dtscodec.compare_behaviour`; or the fine-tune's outputs are NaN or infinite, or a model that is not a
        transformer shall be offloaded.
    NothingToFitError
        No tensor of the pack is coded.
    BaseMismatchError, FormatError
        As for `dtscodec.decode`.
    OutputError
        The output exists, or cannot be written.
    """
    start = time.perf_counter()
    out = as_output_path(out)
    check_new(out, force)
    architecture = read_architecture(model_directory(model, fine_tune))
    prepared = prepare_samples(architecture, Path(samples))
    with (
        open_checkpoint(fine_tune, WHOLE) as fine,
        decode(pack, base, whole=True, lossy=True) as decoded,
        quiet_transformers(),
        StoredOutputs() as stored,
    ):
        decoded.pack.check_front()
        offload = must_offload(architecture, fine, device) if offload is None else offload
        specs = fine.specs, {name: decoded.spec(name) for name in decoded}
        precision = Precision.for_checkpoints(specs, device)
        model_of_fine = load_teacher(architecture, fine, precision, offload)
        # A GPU is faster than reading what was stored.
        teacher = Teacher(model_of_fine, fine.location, stored if device == "cpu" else None)
        # Batches without predictions cannot change the loss.
        every = [batch.to(device) for batch in prepared.batches(teacher.model, batch_size, batch_tokens)]
        batches = [batch for batch in every if len(batch.places)]
        means: dict[str, Tensor] = {}
        if bias_correction:
            with precision.products():
                means = mean_outputs(teacher.model, batches, biased_layers(teacher.model))

        def attempt(with_codes: bool) -> _Attempt:
            # Student: the decoded model, with weights that are functions of the pack's numbers.
            student = load_student(architecture, decoded, precision, offload)
            distillation = Distillation(student, teacher, batches[0], precision)
            before = mean_loss(distillation, batches)
            if means:  # Looking for biases would run layers, of which offloaded models have no memory.
                with precision.products():
                    correct_biases(student, batches, means)
            parameters = all_parameters(student, partial(read_tensor, fine), with_codes, elements)
            settings = steps, with_codes, elements, bias_correction, precision, fine.location, decoded.pack.id
            state = None if checkpoint is None else FitCheckpoint(Path(checkpoint), fit_key(settings, batches))
            optimize(student, parameters, batches, distillation.backward, steps, progress, state)
            student.rebuild()
            after = mean_loss(distillation, batches)
            count = student.count(with_codes, elements) if steps else 0
            return _Attempt(before, after, student.streams(), count)

        # Codes that least squares has fitted to a delta of low rank are hard to better: then fit the rest alone.
        for with_codes in [True, False] if codes and steps else [False]:
            before, after, streams, fitted = attempt(with_codes)
            if after.total <= before.total:
                break
        else:
            # Quantizing again may cost more than the fit has gained: then the numbers of the pack remain.
            streams, after = {}, before
        # The pack is read while the fitted one is written, so it must not be replaced.
        inputs = [decoded.pack.path] if decoded.pack.path else []
        numbers = decoded.pack.reader.numbers_dtype
        with PackAssembler(out, numbers, force=force, inputs=inputs, start=start) as assembler:
            report = recode(assembler, decoded.pack, streams, _encoder(decoded.pack))
    if checkpoint is not None:
        FitCheckpoint(Path(checkpoint), "").remove()
    return report.extended(
        FitReport,
        samples=sum(batch.samples for batch in batches),
        truncated=sum(batch.truncated for batch in batches),
        numbers=fitted,
        offloaded=offload,
        before=before,
        after=after,
    )


class _Attempt(NamedTuple):
    """The result of a fit, with or without codes."""

    before: FitLoss
    after: FitLoss
    streams: Mapping[str, Sequence[Streams]]
    numbers: int


def _encoder(pack: Pack) -> str:
    """Return the summary's text about the encoder, which ends in the word for a fitted pack."""
    text = pack.summary.encoder or ""
    return text if text.endswith(DISTILLED) else f"{text} {DISTILLED}".strip()
