"""Pack + fine-tune + samples -> agreement, KL, accuracy and perplexity of the decoded model."""

import math
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.decoding.decode import decode
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.architecture import model_directory, read_architecture
from dtscodec.evaluation.confidence import agreement_limit, kl_limit
from dtscodec.evaluation.prediction_logits import PredictionLogits
from dtscodec.evaluation.prediction_sums import PredictionSums, compare_predictions
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.samples import PreparedSamples, prepare_samples
from dtscodec.evaluation.transformers_library import quiet_transformers
from dtscodec.packs.pack import PackSource
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import WHOLE

PREDICTIONS_AT_A_TIME = 256
"""Bounds memory: with a large vocabulary the logits of one prediction take megabytes."""


class FigurePair(NamedTuple):
    """A figure of the fine-tune, and the same of the decoded model."""

    fine_tune: float
    decoded: float


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The predictions of a decoded pack, compared with its fine-tune's.

    Parameters
    ----------
    samples : int
        Number of samples.
    predictions : int
        Number of predictions: a classifier makes one for each sample, a language model one for each token but the
        first of a text.
    kl : float
        Mean of KL(fine-tune || decoded) over predictions, in nats.
    agreement : float
        Share of predictions whose most probable choice is the same.
    accuracy : FigurePair, optional
        Shares of a classifier's predictions that equal the labels, if samples are labelled.
    perplexity : FigurePair, optional
        exp of the mean negative log-likelihood of a token, for a causal language model.
    kl_limit, agreement_limit : float, optional
        One-sided confidence limits at 95 %, with samples as independent units: the KL is at most, and the agreement is
        at least that much (`dtscodec.evaluation.confidence`). None of a single sample.
    """

    samples: int
    predictions: int
    kl: float
    agreement: float
    accuracy: FigurePair | None = None
    perplexity: FigurePair | None = None
    kl_limit: float | None = None
    agreement_limit: float | None = None


def compare_behaviour(
    pack: PackSource,
    fine_tune: Source,
    base: "Source | Base | None" = None,
    *,
    samples: "str | os.PathLike[str]",
    model: "str | os.PathLike[str] | None" = None,
    batch_size: int = 16,
    progress: ProgressCallback = no_progress,
) -> Behaviour:
    """Decode a pack, and compare its predictions on samples with those of its fine-tune.

    Both models are in memory at once. They run on the CPU in float32, whatever the dtype of the weights, without
    dropout. Texts are truncated to the model's length; images are resized by its image processor. Needs the package
    transformers, and Pillow for images. No file is fetched from the Hub, and no code in a model directory is run.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack.
    fine_tune : path or mapping of tensors
        The fine-tune, under the names that its checkpoint has on disk.
    base : path, mapping of tensors, or Base, optional
        As for `dtscodec.decode`.
    samples : path
        A file of texts (``*.jsonl`` with ``text`` and ``label``, ``*.tsv`` with text, tab and label, or one text per
        line), or a folder of images, or of folders of images that are named after their labels. Labels are optional.
    model : path, optional
        The directory of configuration, and tokenizer or image processor; by default the fine-tune's own.
    batch_size : int
        Samples in a batch.
    progress : callable
        Called with the number of samples of each batch that is done.

    Raises
    ------
    SamplesError
        The samples cannot be read, or are not of the kind that the model takes.
    CheckpointError
        The model is not supported, the weights are not this model's, or predictions are not finite.
    BackendError
        A package is not installed.
    BaseMismatchError, FormatError
        As for `dtscodec.decode`.
    """
    # Check samples first: their errors should be reported before the models load, which takes longer.
    architecture = read_architecture(model_directory(model, fine_tune))
    prepared = prepare_samples(architecture, Path(samples), architecture.classes)
    # Build both models, from the fine-tune's weights and from the decoded ones.
    with open_checkpoint(fine_tune, WHOLE) as fine:
        tuned = architecture.load(fine)
    with decode(pack, base, whole=True) as decoded:
        ours = architecture.build(decoded, str(decoded.pack.path or "pack"))
    return compare_models(tuned, ours, prepared, str(samples), batch_size, progress)


def compare_models(
    fine_tune: Any,
    decoded: Any,
    prepared: PreparedSamples,
    location: str,
    batch_size: int,
    progress: ProgressCallback = no_progress,
) -> Behaviour:
    """Compare the predictions of two models on samples.

    Parameters
    ----------
    fine_tune, decoded : transformers.PreTrainedModel
        The models, in evaluation mode.
    prepared : PreparedSamples
        The samples.
    location : str
        Path of the samples, for messages.
    batch_size : int
        Samples in a batch.
    progress : callable
        Called with the number of samples of each batch that is done.

    Raises
    ------
    CheckpointError
        No sample has a prediction, or predictions are not finite.
    """
    sums = sample_sums(fine_tune, decoded, prepared, batch_size, progress)
    if not sums:
        detail = "expected a text of at least two tokens to predict one from another, got none"
        raise CheckpointError(f"{location}: {detail}")
    is_labelled = prepared.samples[0].label is not None
    is_causal = prepared.architecture.classes is None
    return _figures(sums, len(prepared.samples), is_causal=is_causal, is_labelled=is_labelled)


def sample_sums(
    fine_tune: Any,
    decoded: Any,
    prepared: PreparedSamples,
    batch_size: int,
    progress: ProgressCallback = no_progress,
    device: str = "cpu",
) -> list[PredictionSums]:
    """Return the sums over the predictions of each sample that has any, in no particular order.

    Parameters
    ----------
    fine_tune, decoded, prepared, batch_size, progress
        As for `compare_models`.
    device : str
        The device that both models are on.

    Raises
    ------
    CheckpointError
        Predictions are not finite.
    """
    sums: list[PredictionSums] = []
    with quiet_transformers():
        # Both models get the same batches, made for the fine-tune's model.
        for batch in prepared.batches(fine_tune, batch_size):
            if len(batch.places):
                sums += _compare_batch(fine_tune, decoded, batch.to(device))
            progress(batch.samples)
    if not all(math.isfinite(value) for sample in sums for value in astuple(sample)):
        raise CheckpointError("the predictions: expected finite numbers, got others", Remedy("are the weights finite?"))
    return sums


@torch.inference_mode()
def _compare_batch(fine_tune: Any, decoded: Any, batch: SampleBatch) -> list[PredictionSums]:
    """Return the sums over the predictions of each sample of one batch."""
    models = PredictionLogits(fine_tune, batch), PredictionLogits(decoded, batch)
    found = []
    for sample, rows in batch.by_sample():
        sums = PredictionSums()
        # A part of the predictions at a time, since they are compared in float64.
        for part in torch.split(rows, PREDICTIONS_AT_A_TIME):
            fine_logits, logits = (model.of(sample, batch.places[part]) for model in models)
            targets = None if batch.targets is None else batch.targets[part.cpu()].to(logits.device)
            sums += compare_predictions(fine_logits, logits, targets)
        found.append(sums)
    return found


def _figures(parts: Sequence[PredictionSums], samples: int, is_causal: bool, is_labelled: bool) -> Behaviour:
    """Return means over predictions, and confidence limits of two of them."""
    sums = sum(parts, PredictionSums())
    count = sums.predictions
    # exp of a mean of 700 nats overflows float64, or nearly.
    if max(sums.loss, sums.decoded_loss) > 700 * count:
        raise CheckpointError("the predictions: expected finite numbers, got others", Remedy("are the weights finite?"))
    return Behaviour(
        samples=samples,
        predictions=count,
        kl=max(0.0, sums.kl / count),  # Rounding may leave a little less than zero.
        agreement=sums.agreed / count,
        kl_limit=kl_limit(parts) if len(parts) > 1 else None,
        agreement_limit=agreement_limit(parts) if len(parts) > 1 else None,
        accuracy=FigurePair(sums.right / count, sums.decoded_right / count) if is_labelled else None,
        perplexity=FigurePair(math.exp(sums.loss / count), math.exp(sums.decoded_loss / count)) if is_causal else None,
    )
