"""How close the predictions of a decoded pack come to those of its fine-tune."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.decoding.decode import decode
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.architecture import NAME_MODEL, read_architecture
from dtscodec.evaluation.prediction_sums import PredictionSums, compare_predictions
from dtscodec.evaluation.prepared_samples import prepare_samples
from dtscodec.evaluation.sample_batch import SampleBatch
from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors
from dtscodec.packs.pack import PackSource
from dtscodec.storage.access import WHOLE

ROWS = 256
"""Predictions that are compared at a time: with a large vocabulary each takes megabytes."""


class FigurePair(NamedTuple):
    """A figure of the fine-tune, and of what is decoded."""

    fine_tune: float
    decoded: float


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a decoded pack predicts, beside its fine-tune.

    Parameters
    ----------
    samples, predictions : int
        What was tried. A classifier makes one prediction a text or image, a language model one for every token that
        follows another.
    kl : float
        Mean of KL(fine-tune || decoded) over predictions, in nats.
    agreement : float
        Share of predictions with the same first choice.
    accuracy : Both, optional
        Shares of right answers, of a classifier on labelled samples.
    perplexity : Both, optional
        exp of the mean negative log-likelihood of a token, of a causal language model.
    """

    samples: int
    predictions: int
    kl: float
    agreement: float
    accuracy: FigurePair | None = None
    perplexity: FigurePair | None = None


def compare_behaviour(
    pack: PackSource,
    fine_tune: Source,
    base: "Source | Base | None" = None,
    *,
    samples: "str | os.PathLike[str]",
    model: "str | os.PathLike[str] | None" = None,
    batch_size: int = 16,
    progress: Callable[[int], None] = lambda count: None,
) -> Behaviour:
    """Decode a pack, and compare what it predicts on texts or images with what its fine-tune predicts.

    Both models are in memory at once, and compute in float32 whatever the dtype of the weights, on the CPU, without
    dropout. Texts are cut to what the model takes, images made so by its image processor. Needs the package
    transformers, for images Pillow too; nothing is fetched from the Hub, and no code out of a model directory is run.

    Parameters
    ----------
    pack : path, bytes or Pack
    fine_tune : path or mapping of tensors
        With the names that it has on disk.
    base : path, mapping of tensors, or Base
        As for `dtscodec.decode`.
    samples : path
        What to try: a file of texts, see `dtscodec.evaluation.texts.read_texts`, or a folder of images, see
        `dtscodec.evaluation.images.read_images`.
    model : path
        The model directory with configuration, and tokenizer or image processor; by default the fine-tune's own.
    batch_size : int
        Samples in a batch.
    progress : callable
        Told the number of samples of each batch that is done.

    Raises
    ------
    SamplesError
        The samples cannot be read, or the model takes none such.
    CheckpointError
        The model directory is of another kind than supported, or these are not its weights.
    BackendError
        A package that this needs is not there.
    BaseMismatchError, FormatError
        As for `dtscodec.decode`.
    """
    architecture = read_architecture(model_directory(model, fine_tune))
    prepared = prepare_samples(architecture, Path(samples), architecture.classes)
    with open_checkpoint(fine_tune, WHOLE) as fine:
        tuned = architecture.load(fine)
    with decode(pack, base, whole=True) as decoded:
        ours = architecture.build(decoded, str(decoded.pack.path or "pack"))
    sums = PredictionSums()
    with quiet_transformers():
        for batch in prepared.batches(tuned, batch_size):
            sums += _compare_batch(tuned, ours, batch)
            progress(batch.samples)
    if not sums.predictions:
        raise CheckpointError(
            f"{samples}: expected a text of at least two tokens to predict one from another, got none"
        )
    is_labelled = prepared.samples[0].label is not None
    return _figures(sums, len(prepared.samples), is_causal=architecture.classes is None, is_labelled=is_labelled)


def model_directory(model: "str | os.PathLike[str] | None", fine_tune: Source) -> Path:
    """The directory of configuration, and tokenizer or image processor: the one that is named, or the fine-tune's own.

    Raises
    ------
    CheckpointError
        None is named, and the fine-tune is no directory.
    """
    if model is not None:
        return Path(model)
    if isinstance(fine_tune, Mapping) or not Path(fine_tune).is_dir():
        where = "the mapping" if isinstance(fine_tune, Mapping) else fine_tune
        detail = "expected a model directory with its config.json, got weights only"
        raise CheckpointError(f"{where}: {detail}", NAME_MODEL)
    return Path(fine_tune)


@torch.inference_mode()
def _compare_batch(fine_tune: Any, decoded: Any, batch: SampleBatch) -> PredictionSums:
    """Sums over the predictions on one batch."""
    sums = PredictionSums()
    if len(batch.places):
        fine_logits, decoded_logits = _logits(fine_tune, batch), _logits(decoded, batch)
        for start in range(0, len(batch.places), ROWS):
            rows = slice(start, start + ROWS)
            places, targets = batch.places[rows], None if batch.targets is None else batch.targets[rows]
            sums += compare_predictions(fine_logits[places], decoded_logits[places], targets)
    return sums


def _logits(model: Any, batch: SampleBatch) -> Tensor:
    with transformers_errors(type(model).__name__, "a model that takes these samples"):
        logits: Tensor = model(**batch.inputs, return_dict=True).logits
        return logits.flatten(0, -2)


def _figures(sums: PredictionSums, samples: int, is_causal: bool, is_labelled: bool) -> Behaviour:
    """Means of the sums."""
    count = sums.predictions
    # A mean of 700 nats is as good as infinite: no float holds such a perplexity.
    if not all(map(math.isfinite, astuple(sums))) or max(sums.loss, sums.decoded_loss) > 700 * count:
        raise CheckpointError("the predictions: expected finite numbers, got others", Remedy("are the weights finite?"))
    return Behaviour(
        samples=samples,
        predictions=count,
        kl=max(0.0, sums.kl / count),  # Rounding may leave a little less than zero.
        agreement=sums.agreed / count,
        accuracy=FigurePair(sums.right / count, sums.decoded_right / count) if is_labelled else None,
        perplexity=FigurePair(math.exp(sums.loss / count), math.exp(sums.decoded_loss / count)) if is_causal else None,
    )
