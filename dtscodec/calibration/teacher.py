"""The fine-tune as the teacher of a fit: its outputs are the targets."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dtscodec.calibration.model_outputs import ModelOutputs, model_outputs, without_padding
from dtscodec.calibration.stored_outputs import StoredOutputs
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.sample_batches import SampleBatch


class Teacher:
    """A fine-tune that is run on one batch at a time: the outputs of others are not in memory.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The fine-tune.
    location : str
        Location of the fine-tune, for messages.
    stored : StoredOutputs, optional
        Stores the outputs on a batch for the next time. By default the fine-tune runs anew.
    """

    def __init__(self, model: Any, location: str, stored: StoredOutputs | None = None) -> None:
        self.model, self._location, self._stored = model, location, stored

    def outputs(
        self, batch: SampleBatch, parts: Sequence[SampleBatch], without: nn.Module | None = None
    ) -> Sequence[ModelOutputs]:
        """Return the outputs of the fine-tune on the parts of a batch, without a graph.

        Parameters
        ----------
        batch : SampleBatch
            The batch: the same object each time, in the same parts.
        parts : sequence of SampleBatch
            What it was split into.
        without : nn.Module, optional
            The output layer, if that is to be left out; see `plain_output_layer`.

        Raises
        ------
        CheckpointError
            They are NaN or infinite.
        """
        if self._stored is None:
            return [self._run(part, without) for part in parts]
        found = self._stored.get(id(batch))
        if found is None:
            found = [self._run(part, without) for part in parts]
            self._stored.add(id(batch), found)
        return found

    @torch.no_grad()
    def _run(self, batch: SampleBatch, without: nn.Module | None) -> ModelOutputs:
        found = model_outputs(self.model, batch, without)
        # A logit of -inf rules a choice out, and is fine; the log-softmax is NaN if any other one is not finite.
        is_finite = all(without_padding(layer, batch).isfinite().all() for layer in found.hidden_states)
        if not is_finite or torch.log_softmax(found.predictions, dim=-1).isnan().any():
            detail = "expected finite predictions and hidden states, got NaN or infinity"
            raise CheckpointError(f"{self._location}: {detail}", Remedy("are the weights finite?"))
        return found
