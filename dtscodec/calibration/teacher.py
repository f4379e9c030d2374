"""The fine-tune's outputs on calibration samples: the targets of a fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtscodec.calibration.bias_correction import biased_layers, mean_outputs
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.architecture import Architecture
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors
from dtscodec.storage.open_file import WHOLE


@dataclass(frozen=True, slots=True)
class TeacherOutput:
    """A batch of samples, and the fine-tune's outputs on it.

    Parameters
    ----------
    batch : SampleBatch
        The batch.
    log_probabilities : float32 [predictions, choices]
        Log-probabilities of the predictions.
    hidden_states : tuple of float32 [samples, ..., features]
        Hidden states: of the embeddings, then of each layer.
    """

    batch: SampleBatch
    log_probabilities: Tensor
    hidden_states: tuple[Tensor, ...]


def teacher_outputs(
    architecture: Architecture,
    fine_tune: Source,
    samples: Path,
    *,
    batch_size: int,
    device: str,
    with_means: bool,
) -> tuple[list[TeacherOutput], dict[str, Tensor]]:
    """Run a fine-tune on all samples, and return its outputs.

    Parameters
    ----------
    architecture : Architecture
        The fine-tune's.
    fine_tune : path or mapping of tensors
        Its weights.
    samples : Path
        A file of texts or a folder of images.
    batch_size : int
        Samples in a batch.
    device : str
        The device that the model runs on; the outputs are there, too.
    with_means : bool
        Also compute the mean outputs of layers that add a bias; see `mean_outputs`.

    Returns
    -------
    outputs : list of TeacherOutput
        Batches without any prediction are left out.
    means : dict
        Mean outputs by layer; empty unless `with_means`.

    Raises
    ------
    SamplesError, BackendError
        As for `dtscodec.compare_behaviour`.
    CheckpointError
        As for `dtscodec.compare_behaviour`; or outputs are NaN or infinite.
    """
    prepared = prepare_samples(architecture, samples)
    with open_checkpoint(fine_tune, WHOLE) as fine:
        model, where = architecture.load(fine).to(device), fine.location
    with quiet_transformers(), torch.no_grad():
        batches = [batch.to(device) for batch in prepared.batches(model, batch_size)]
        # Batches without predictions cannot change the loss.
        outputs = [teacher_output(model, batch, where) for batch in batches if len(batch.places)]
        means = mean_outputs(model, [output.batch for output in outputs], biased_layers(model)) if with_means else {}
        return outputs, means


def teacher_output(model: Any, batch: SampleBatch, where: str) -> TeacherOutput:
    """Return the outputs of a fine-tune on one batch.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The fine-tune.
    batch : SampleBatch
        The batch.
    where : str
        Location of the fine-tune, for messages.

    Raises
    ------
    CheckpointError
        They are NaN or infinite.
    """
    logits, hidden_states = model_outputs(model, batch)
    # NaN if any logit of a row is NaN or +inf. A logit of -inf rules a choice out, and is fine.
    log_probabilities = torch.log_softmax(logits, dim=-1)
    is_finite = all(without_padding(layer, batch).isfinite().all() for layer in hidden_states)
    if log_probabilities.isnan().any() or not is_finite:
        detail = "expected finite predictions and hidden states, got NaN or infinity"
        raise CheckpointError(f"{where}: {detail}", Remedy("are the weights finite?"))
    return TeacherOutput(batch, log_probabilities, hidden_states)


def model_outputs(model: Any, batch: SampleBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the logits of a batch's predictions, and the hidden states of every layer: float32.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The fine-tune or the decoded model.
    batch : SampleBatch
        The batch.

    Returns
    -------
    logits : float32 [predictions, choices]
        Logits where the batch has predictions.
    hidden_states : tuple of float32 [samples, ..., features]
        Hidden states: of the embeddings, then of each layer.
    """
    with transformers_errors(type(model).__name__, "a model that takes these samples and gives its hidden states"):
        found = model(**batch.inputs, return_dict=True, output_hidden_states=True)
        return found.logits.flatten(0, -2)[batch.places], tuple(found.hidden_states)


def without_padding(hidden: Tensor, batch: SampleBatch) -> Tensor:
    """Return the hidden states of a layer with those of padding set to 0; images have no padding."""
    mask = batch.inputs.get("attention_mask")
    return hidden if mask is None else hidden.masked_fill(mask[..., None] == 0, 0.0)
