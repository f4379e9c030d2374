"""The loss of a fit: the distance of the decoded model from its fine-tune on calibration samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dtscodec.calibration.teacher import TeacherOutput, model_outputs, without_padding
from dtscodec.evaluation.prediction_sums import kl_terms

HIDDEN_WEIGHT = 10.0
"""Weight of the relative squared difference of hidden states; the weight of the KL, in nats, is 1.

Hidden states carry more information than predictions on few samples, and prevent the fit from memorizing these.
"""


@dataclass(frozen=True, slots=True)
class FitLoss:
    """The distance of a decoded model from its fine-tune on the calibration samples.

    Parameters
    ----------
    kl : float
        Mean of KL(fine-tune || decoded) over predictions, in nats.
    hidden : float
        Mean over layers of the squared difference of hidden states, relative to their squared norm.
    """

    kl: float
    hidden: float

    @property
    def total(self) -> float:
        """The value that the fit minimizes."""
        return self.kl + HIDDEN_WEIGHT * self.hidden


def batch_losses(model: Any, target: TeacherOutput) -> tuple[Tensor, Tensor]:
    """Return the KL and the relative squared difference of hidden states on one batch, with their graphs.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The decoded model.
    target : TeacherOutput
        The batch, with the fine-tune's outputs.

    Returns
    -------
    kl : float32 scalar
        Mean over predictions.
    hidden : float32 scalar
        Mean over layers.
    """
    logits, hidden_states = model_outputs(model, target.batch)
    log_probabilities = torch.log_softmax(logits, dim=-1)
    # Each layer is relative to its own squared norm, so that all count alike.
    pairs = zip(target.hidden_states, hidden_states, strict=True)
    layers = [_relative_square(*(without_padding(layer, target.batch) for layer in pair)) for pair in pairs]
    return kl_terms(target.log_probabilities, log_probabilities).sum(-1).mean(), torch.stack(layers).mean()


def _relative_square(true: Tensor, found: Tensor) -> Tensor:
    return (found - true).square().sum() / true.square().sum().clamp(min=torch.finfo(true.dtype).tiny)


@torch.no_grad()
def mean_loss(model: Any, targets: Sequence[TeacherOutput]) -> FitLoss:
    """Return the mean loss over all samples. A batch is weighted by its number of predictions.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The decoded model.
    targets : sequence of TeacherOutput
        All batches, with the fine-tune's outputs.
    """
    weights = torch.tensor([float(len(target.batch.places)) for target in targets])
    losses = torch.tensor([[float(part) for part in batch_losses(model, target)] for target in targets])
    kl, hidden = (weights @ losses / weights.sum()).tolist()
    # Rounding may leave a KL below zero. In this order of the arguments of `max`, NaN remains NaN.
    return FitLoss(max(kl, 0.0), hidden)
