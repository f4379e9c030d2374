"""The loss of a fit: the distance of the decoded model from its fine-tune on calibration samples."""

from dataclasses import dataclass

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
