"""The fine-tune as the teacher of a fit: its outputs are the targets."""

from typing import Any

import torch
from torch import nn

from dtscodec.calibration.model_outputs import ModelOutputs, model_outputs, without_padding
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.sample_batches import SampleBatch


class Teacher:
    """A fine-tune that is run anew on each batch, so that the outputs of one batch only are in memory.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The fine-tune.
    location : str
        Location of the fine-tune, for messages.
    """

    def __init__(self, model: Any, location: str) -> None:
        self.model, self._location = model, location

    @torch.no_grad()
    def outputs(self, batch: SampleBatch, without: nn.Module | None = None) -> ModelOutputs:
        """Return the outputs of the fine-tune on one batch, without a graph.

        Parameters
        ----------
        batch : SampleBatch
            The batch.
        without : nn.Module, optional
            Its output layer, if that is to be left out; see `plain_output_layer`.

        Raises
        ------
        CheckpointError
            They are NaN or infinite.
        """
        found = model_outputs(self.model, batch, without)
        # A logit of -inf rules a choice out, and is fine; the log-softmax is NaN if any other one is not finite.
        is_finite = all(without_padding(layer, batch).isfinite().all() for layer in found.hidden_states)
        if not is_finite or torch.log_softmax(found.predictions, dim=-1).isnan().any():
            detail = "expected finite predictions and hidden states, got NaN or infinity"
            raise CheckpointError(f"{self._location}: {detail}", Remedy("are the weights finite?"))
        return found
