"""Knowledge distillation: the loss of a decoded model against its fine-tune, and its gradient, batch by batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dtscodec.calibration.fit_loss import HIDDEN_WEIGHT, FitLoss
from dtscodec.calibration.model_outputs import ModelOutputs, model_outputs, without_padding
from dtscodec.calibration.teacher import Teacher
from dtscodec.evaluation.prediction_sums import kl_terms
from dtscodec.evaluation.sample_batches import SampleBatch


class Distillation:
    """The loss of a model against its teacher on batches of samples.

    A batch is run in parts: what a backward pass needs is in memory for one part only, and the gradients of the parts
    add up to that of the batch.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The decoded model.
    teacher : Teacher
        Its fine-tune.
    part_tokens : int
        Largest number of tokens of a part.
    """

    def __init__(self, model: Any, teacher: Teacher, part_tokens: int) -> None:
        self._model, self._teacher, self._part_tokens = model, teacher, part_tokens

    def backward(self, batch: SampleBatch) -> FitLoss:
        """Return the loss on a batch, and add its gradient to those of the model's parameters.

        Parameters
        ----------
        batch : SampleBatch
            The batch, on the device of the models.
        """
        return self._loss(batch, with_gradient=True)

    @torch.no_grad()
    def loss(self, batch: SampleBatch) -> FitLoss:
        """Return the loss on a batch.

        Parameters
        ----------
        batch : SampleBatch
            The batch, on the device of the models.
        """
        return self._loss(batch, with_gradient=False)

    def _loss(self, batch: SampleBatch, with_gradient: bool) -> FitLoss:
        parts = batch.split(self._part_tokens)
        targets = [self._teacher.outputs(part) for part in parts]
        # Each layer is relative to its own squared norm in the whole batch, so that all count alike.
        squares = sum(_squares(target.hidden_states, part) for target, part in zip(targets, parts, strict=True))
        assert isinstance(squares, Tensor)
        squares = squares.clamp(min=torch.finfo(squares.dtype).tiny)
        kl = hidden = 0.0
        for part, target in zip(parts, targets, strict=True):
            found = model_outputs(self._model, part)
            differences = zip(found.hidden_states, target.hidden_states, strict=True)
            layers = (_squares([one - other for one, other in differences], part) / squares).mean()
            divergence = _divergence(target, found) / len(batch.places)
            if with_gradient:
                torch.autograd.backward(divergence + HIDDEN_WEIGHT * layers)
            kl, hidden = kl + float(divergence.detach()), hidden + float(layers.detach())
        return FitLoss(kl, hidden)


def _squares(hidden_states: Sequence[Tensor], batch: SampleBatch) -> Tensor:
    """Return the squared norm of each layer's hidden states: float32 [layers]."""
    return torch.stack([without_padding(layer, batch).square().sum() for layer in hidden_states])


def _divergence(true: ModelOutputs, found: ModelOutputs) -> Tensor:
    """Return the sum of KL(fine-tune || decoded) over the predictions of a batch."""
    logs = (torch.log_softmax(outputs.logits, dim=-1) for outputs in (true, found))
    return kl_terms(*logs).sum()


def mean_loss(distillation: Distillation, batches: Sequence[SampleBatch]) -> FitLoss:
    """Return the mean loss over batches, each weighted by its number of predictions.

    Parameters
    ----------
    distillation : Distillation
        The loss of a batch.
    batches : sequence of SampleBatch
        The batches, each with predictions.
    """
    total = sum(len(batch.places) for batch in batches)
    kl = hidden = 0.0
    for batch in batches:
        loss, share = distillation.loss(batch), len(batch.places) / total
        kl, hidden = kl + share * loss.kl, hidden + share * loss.hidden
    # Rounding may leave a KL below zero. In this order of the arguments of `max`, NaN remains NaN.
    return FitLoss(max(kl, 0.0), hidden)
