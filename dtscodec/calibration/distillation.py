"""Knowledge distillation: the loss of a decoded model against its fine-tune, and its gradient, batch by batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dtscodec.calibration.fit_loss import HIDDEN_WEIGHT, FitLoss
from dtscodec.calibration.model_outputs import model_outputs, plain_output_layer, without_padding
from dtscodec.calibration.output_divergence import OutputDivergence
from dtscodec.calibration.precision import Precision
from dtscodec.calibration.student import Student
from dtscodec.calibration.teacher import Teacher
from dtscodec.evaluation.prediction_sums import kl_terms
from dtscodec.evaluation.sample_batches import SampleBatch

PART_TOKENS = 256
"""Tokens of a batch that are run at a time: what a backward pass needs is in memory for these only."""
MEASURED_TOKENS = 16_384
"""Tokens of the batches that a mean loss is measured on."""
LOGITS = 2**25
"""Logits of a part, for models whose logits are needed as a whole: 128 MiB in float32."""


class Distillation:
    """The loss of a student against its teacher on batches of samples.

    A batch is run in parts, whose gradients add up to that of the batch.

    Parameters
    ----------
    student : Student
        The decoded model.
    teacher : Teacher
        Its fine-tune.
    batch : SampleBatch
        Some samples, on which it is found out how predictions follow from hidden states.
    precision : Precision
        Precision of the matrix products of both models.
    """

    def __init__(self, student: Student, teacher: Teacher, batch: SampleBatch, precision: Precision) -> None:
        self._student, self._teacher, self._precision = student, teacher, precision
        self._part_tokens = PART_TOKENS
        # The output layers, if both models are run without them.
        with precision.products():
            self._true_layer: Any = plain_output_layer(teacher.model, batch)
        model: Any = student.model
        self._layer: Any = None if self._true_layer is None else model.get_output_embeddings()
        if self._layer is not None and self._layer.weight.requires_grad:
            self._layer = self._true_layer = None
        if self._layer is None and batch.rows > 1:
            choices = model.get_input_embeddings().weight.shape[0]
            self._part_tokens = min(PART_TOKENS, max(1, LOGITS // choices))

    def backward(self, batch: SampleBatch) -> FitLoss:
        """Return the loss on a batch, and add its gradient to those of the student.

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
        with self._precision.products():
            targets = self._teacher.outputs(batch, parts, self._true_layer)
        # Each layer is relative to its own squared norm in the whole batch, so that all count alike.
        squares = torch.stack(
            [_squares(target.hidden_states, part) for target, part in zip(targets, parts, strict=True)]
        ).sum(0)
        squares = squares.clamp(min=torch.finfo(squares.dtype).tiny)
        outputs = self._output_divergence()
        kl = hidden = 0.0
        for part, target in zip(parts, targets, strict=True):
            with self._precision.products():
                found = model_outputs(self._student.model, part, self._layer)
            differences = zip(found.hidden_states, target.hidden_states, strict=True)
            layers = (_squares([one.float() - other for one, other in differences], part) / squares).mean()
            predictions, scale = (target.predictions, found.predictions), 1 / len(batch.places)
            if outputs is None:
                divergence = _backward_logits(*predictions, layers, scale, with_gradient)
            else:
                divergence = _backward(outputs, *predictions, layers, scale, with_gradient)
            kl, hidden = kl + float(divergence), hidden + float(layers.detach())
        return FitLoss(kl, hidden)

    def _output_divergence(self) -> OutputDivergence | None:
        """Return the KL from the inputs of output layers, as these are now; None if the models are run with them."""
        if self._layer is None:
            return None
        return OutputDivergence(self._true_layer.weight, self._layer.weight, self._student.gradient_of(self._layer))


def _backward_logits(true: Tensor, found: Tensor, layers: Tensor, scale: float, with_gradient: bool) -> Tensor:
    """Return the KL of logits, times a scale; if asked, propagate the gradients of it and of the hidden states."""
    logs = (torch.log_softmax(logits.float(), dim=-1) for logits in (true, found))
    divergence = kl_terms(*logs).sum() * scale
    if with_gradient:
        torch.autograd.backward(divergence + HIDDEN_WEIGHT * layers)
    return divergence.detach()


def _backward(
    outputs: OutputDivergence, true: Tensor, found: Tensor, layers: Tensor, scale: float, with_gradient: bool
) -> Tensor:
    """Do the same as `_backward_logits` for the inputs of output layers."""
    if not with_gradient:
        return outputs.sum(true, found) * scale
    total, gradient = outputs.backward(true, found.detach(), scale)
    torch.autograd.backward([HIDDEN_WEIGHT * layers, found], [None, gradient])
    return total * scale


def _squares(hidden_states: Sequence[Tensor], batch: SampleBatch) -> Tensor:
    """Return the squared norm of each layer's hidden states: float32 [layers]."""
    return torch.stack([without_padding(layer, batch).float().square().sum() for layer in hidden_states])


def mean_loss(distillation: Distillation, batches: Sequence[SampleBatch]) -> FitLoss:
    """Return the mean loss over batches, each weighted by its number of predictions.

    Of many batches, evenly spaced ones of `MEASURED_TOKENS` in total count.

    Parameters
    ----------
    distillation : Distillation
        The loss of a batch.
    batches : sequence of SampleBatch
        The batches, each with predictions.
    """
    batches = batches[:: max(1, -(-sum(batch.tokens for batch in batches) // MEASURED_TOKENS))]
    total = sum(len(batch.places) for batch in batches)
    kl = hidden = 0.0
    for batch in batches:
        loss, share = distillation.loss(batch), len(batch.places) / total
        kl, hidden = kl + share * loss.kl, hidden + share * loss.hidden
    # Rounding may leave a KL below zero. In this order of the arguments of `max`, NaN remains NaN.
    return FitLoss(max(kl, 0.0), hidden)
