"""What a fit compares: the predictions and the hidden states of a model on a batch of samples."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.transformers_library import transformers_errors


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of a model on one batch.

    Parameters
    ----------
    logits : float32 [predictions, choices]
        Logits where the batch has predictions.
    hidden_states : tuple of float32 [samples, ..., features]
        Hidden states: of the embeddings, then of each layer.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...]


def model_outputs(model: Any, batch: SampleBatch) -> ModelOutputs:
    """Run a model on a batch.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The fine-tune or the decoded model.
    batch : SampleBatch
        The batch.
    """
    with transformers_errors(type(model).__name__, "a model that takes these samples and gives its hidden states"):
        found = model(**batch.inputs, return_dict=True, output_hidden_states=True)
        return ModelOutputs(found.logits.flatten(0, -2)[batch.places], tuple(found.hidden_states))


def without_padding(hidden: Tensor, batch: SampleBatch) -> Tensor:
    """Return the hidden states of a layer with those of padding set to 0; images have no padding.

    Parameters
    ----------
    hidden : float32 [samples, ..., features]
        Hidden states.
    batch : SampleBatch
        The batch that they belong to.
    """
    mask = batch.inputs.get("attention_mask")
    return hidden if mask is None else hidden.masked_fill(mask[..., None] == 0, 0.0)
