"""Logits of a batch's predictions, computed for some predictions at a time: all of them may take gigabytes."""

from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.transformers_library import transformers_errors


class PredictionLogits:
    """The logits of a model on one batch, which has run without the output layer.

    Of a causal language model the inputs of the output layer are held, which are small, and the layer runs where logits
    are asked for. Some models change its outputs, such as by a soft cap: these run anew on each sample, as a whole.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model, in evaluation mode.
    batch : SampleBatch
        The batch.

    Raises
    ------
    CheckpointError
        The model does not take these samples.
    """

    def __init__(self, model: Any, batch: SampleBatch) -> None:
        self._model, self._batch = model, batch
        self._head: nn.Module | None = model.get_output_embeddings() if batch.rows > 1 else None
        # Rows of inputs of the output layer, or of logits, in the order of `SampleBatch.places`.
        self._rows: Tensor | None = None
        if self._head is None:
            self._rows = self._run(batch.inputs).flatten(0, -2)
        else:
            self._rows = self._run_without(self._head)

    def of(self, sample: int, places: Tensor) -> Tensor:
        """Return logits of some predictions of one sample: float32 [predictions, choices].

        Parameters
        ----------
        sample : int
            The sample's place in the batch.
        places : int64 [predictions]
            Rows among those of the batch; see `SampleBatch.places`.
        """
        if self._rows is None:
            whole = self._run({name: tensor[sample : sample + 1] for name, tensor in self._batch.inputs.items()})
            return whole[0, places - sample * whole.shape[1]]
        rows = self._rows[places]
        logits: Tensor = rows if self._head is None else self._head(rows)
        return logits

    def _run(self, inputs: dict[str, Tensor]) -> Tensor:
        with transformers_errors(type(self._model).__name__, "a model that takes these samples"):
            logits: Tensor = self._model(**inputs, return_dict=True).logits
            return logits

    def _run_without(self, head: nn.Module) -> Tensor | None:
        """Return the inputs of the output layer as rows; None if the model's logits are not its plain outputs."""
        inputs: list[Tensor] = []

        def first_only(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            inputs.extend(arguments)
            return tuple(argument[:, :1] for argument in arguments)

        # The layer gets the first token of each sample only.
        hook = head.register_forward_pre_hook(first_only)
        try:
            logits = self._run(self._batch.inputs)
        finally:
            hook.remove()
        if len(inputs) != 1 or inputs[0].ndim != 3:
            return None
        is_plain = torch.equal(head(inputs[0][:, :1]), logits)
        return inputs[0].flatten(0, 1) if is_plain else None
