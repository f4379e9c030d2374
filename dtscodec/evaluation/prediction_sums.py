"""Logits of two models -> the sums that agreement, KL, accuracy and perplexity are computed from."""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PredictionSums:
    """Sums over predictions of two models; those of batches can be added.

    Parameters
    ----------
    predictions : int
        Number of predictions.
    kl : float
        Sum of KL(fine-tune || decoded), in nats.
    agreed : int
        Number of predictions with the same most probable choice.
    right, decoded_right : int
        Numbers of predictions of the fine-tune, and of the decoded model, with the target as most probable choice.
    loss, decoded_loss : float
        Sums of the negative log-likelihoods of the targets.
    """

    predictions: int = 0
    kl: float = 0.0
    agreed: int = 0
    right: int = 0
    decoded_right: int = 0
    loss: float = 0.0
    decoded_loss: float = 0.0

    def __add__(self, other: "PredictionSums") -> "PredictionSums":
        return PredictionSums(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))


def compare_predictions(fine_tune: Tensor, decoded: Tensor, targets: Tensor | None) -> PredictionSums:
    """Compare predictions of two models, in float64.

    Parameters
    ----------
    fine_tune, decoded : float [predictions, choices]
        Logits of the fine-tune and of the decoded model.
    targets : int64 [predictions], optional
        The right choices, if they are known.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> sums = compare_predictions(logits, logits, torch.tensor([0, 0]))
    >>> sums.predictions, sums.kl, sums.agreed, sums.right
    (2, 0.0, 2, 1)
    """
    # log_softmax, since log(softmax) is -inf where a small probability underflows.
    fine_logs, logs = (torch.log_softmax(logits.double(), dim=-1) for logits in (fine_tune, decoded))
    terms = kl_terms(fine_logs, logs)
    choices, decoded_choices = fine_tune.argmax(dim=-1), decoded.argmax(dim=-1)
    sums = PredictionSums(len(choices), terms.sum().item(), int((choices == decoded_choices).sum()))
    if targets is None:
        return sums
    rights = (int((chosen == targets).sum()) for chosen in (choices, decoded_choices))
    # Negative log-likelihoods of the targets, in nats.
    losses = (-values.gather(-1, targets[:, None]).sum().item() for values in (fine_logs, logs))
    return sums + PredictionSums(0, 0.0, 0, *rights, *losses)


def kl_terms(fine_tune: Tensor, decoded: Tensor) -> Tensor:
    """Return the summand of each choice in KL(fine-tune || decoded): [predictions, choices].

    Parameters
    ----------
    fine_tune, decoded : float [predictions, choices]
        Log-probabilities.
    """
    # A choice of probability 0 adds 0, by the limit of p log p; -inf - -inf would give NaN.
    return torch.where(fine_tune.isneginf(), 0.0, fine_tune.exp() * (fine_tune - decoded))
