"""What a fit compares: the predictions and the hidden states of a model on a batch of samples."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.transformers_library import transformers_errors
from dtscodec.runtime.branches.branch_for_layer import branch_class
from dtscodec.runtime.branches.linear import LinearBranch


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of a model on one batch.

    Parameters
    ----------
    predictions : float [predictions, choices or features]
        Logits where the batch has predictions, or the inputs of the output layer that the model was run without.
    hidden_states : tuple of float [samples, ..., features]
        Hidden states: of the embeddings, then of each layer.
    """

    predictions: Tensor
    hidden_states: tuple[Tensor, ...]


def model_outputs(model: Any, batch: SampleBatch, without: nn.Module | None = None) -> ModelOutputs:
    """Run a model on a batch.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The fine-tune or the decoded model.
    batch : SampleBatch
        The batch.
    without : nn.Module, optional
        Its output layer, if that is to be left out; see `plain_output_layer`.
    """
    with transformers_errors(type(model).__name__, "a model that takes these samples and gives its hidden states"):
        if without is None:
            found = model(**batch.inputs, return_dict=True, output_hidden_states=True)
            rows = found.logits
        else:
            found, rows = _run_without(model, batch, without)
        return ModelOutputs(rows.flatten(0, -2)[batch.places], tuple(found.hidden_states))


@torch.no_grad()
def plain_output_layer(model: Any, batch: SampleBatch) -> nn.Module | None:
    """Return the output layer of a causal language model if the logits are its plain outputs.

    The logits of all predictions of a batch may take gigabytes. Where this layer is the last one, it can be left out of
    the model, and applied to some predictions at a time. Some models change its outputs, such as by a soft cap.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    batch : SampleBatch
        Some samples.

    Returns
    -------
    nn.Module or None
        A linear layer without a bias. None if the model has no such layer, or changes its outputs.
    """
    layer = model.get_output_embeddings() if batch.rows > 1 else None
    if layer is None or branch_class(layer) is not LinearBranch or layer.bias is not None:
        return None
    with transformers_errors(type(model).__name__, "a model that takes these samples and gives its hidden states"):
        found, inputs = _run_without(model, batch.split(1)[0], layer)
    is_plain = inputs.ndim == 3 and torch.equal(layer(inputs[:, :1]), found.logits)
    return layer if is_plain else None


def _run_without(model: Any, batch: SampleBatch, layer: nn.Module) -> tuple[Any, Tensor]:
    """Run a model whose output layer gets the first token of each sample only; return its outputs and their inputs."""
    inputs: list[Tensor] = []

    def first_only(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs.extend(arguments)
        return tuple(argument[:, :1] for argument in arguments)

    hook = layer.register_forward_pre_hook(first_only)
    try:
        found = model(**batch.inputs, return_dict=True, output_hidden_states=True)
    finally:
        hook.remove()
    return found, inputs[0]


def without_padding(hidden: Tensor, batch: SampleBatch) -> Tensor:
    """Return the hidden states of a layer with those of padding set to 0; images have no padding.

    Parameters
    ----------
    hidden : float [samples, ..., features]
        Hidden states.
    batch : SampleBatch
        The batch that they belong to.
    """
    mask = batch.inputs.get("attention_mask")
    return hidden if mask is None else hidden.masked_fill(mask[..., None] == 0, 0.0)
