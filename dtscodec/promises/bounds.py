"""Bounds that a promise keeps: the largest KL, or the smallest agreement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from dtscodec.errors import ConfigError
from dtscodec.evaluation.confidence import agreement_limit, kl_limit
from dtscodec.evaluation.prediction_sums import PredictionSums
from dtscodec.format.claim import UNIT, Measure


@dataclass(frozen=True, slots=True)
class MaxKl:
    """The mean KL(fine-tune || decoded) of a prediction is at most this.

    Parameters
    ----------
    nats : float
        At least 1e-9.

    Raises
    ------
    ConfigError
        The bound is out of range.
    """

    nats: float
    measure: ClassVar[Measure] = "kl"
    usual_slope: ClassVar[float] = -1.0
    usual_gain: ClassVar[float] = 2.5

    def __post_init__(self) -> None:
        if not 1 / UNIT <= self.nats < 1e6:
            raise ConfigError(f"expected a KL of 1e-9 to 1e6 nats as bound, got {self.nats!r}")

    @property
    def value(self) -> float:
        """The bound itself."""
        return self.nats

    @property
    def most(self) -> float:
        """The largest `shortfall`."""
        return self.nats

    def figure(self, samples: Sequence[PredictionSums]) -> float:
        """Return the mean KL of a prediction, in nats.

        Parameters
        ----------
        samples : sequence of PredictionSums
            Sums over the predictions of each sample.
        """
        return max(0.0, sum(sample.kl for sample in samples) / sum(sample.predictions for sample in samples))

    def limit(self, samples: Sequence[PredictionSums], confidence: float) -> float:
        """Return the confidence limit of `figure`; see `dtscodec.evaluation.confidence.kl_limit`."""
        return kl_limit(samples, confidence)

    def shortfall(self, figure: float) -> float:
        """Return what a figure is short of perfect: the KL itself. It is to be at most `most`."""
        return figure

    def __str__(self) -> str:
        return f"a KL of at most {self.nats:g}"


@dataclass(frozen=True, slots=True)
class MinAgreement:
    """The share of predictions whose most probable choice is the fine-tune's is at least this.

    Parameters
    ----------
    share : float
        Above 0 and below 1.

    Raises
    ------
    ConfigError
        The bound is out of range.
    """

    share: float
    measure: ClassVar[Measure] = "agreement"
    usual_slope: ClassVar[float] = -0.5
    usual_gain: ClassVar[float] = 1.5

    def __post_init__(self) -> None:
        if not 1 / UNIT <= self.share <= 1 - 1 / UNIT:
            raise ConfigError(f"expected an agreement above 0 and below 1 as bound, got {self.share!r}")

    @property
    def value(self) -> float:
        """The bound itself."""
        return self.share

    @property
    def most(self) -> float:
        """The largest `shortfall`."""
        return 1 - self.share

    def figure(self, samples: Sequence[PredictionSums]) -> float:
        """Return the share of predictions that agree.

        Parameters
        ----------
        samples : sequence of PredictionSums
            Sums over the predictions of each sample.
        """
        return sum(sample.agreed for sample in samples) / sum(sample.predictions for sample in samples)

    def limit(self, samples: Sequence[PredictionSums], confidence: float) -> float:
        """Return the confidence limit of `figure`; see `dtscodec.evaluation.confidence.agreement_limit`."""
        return agreement_limit(samples, confidence)

    def shortfall(self, figure: float) -> float:
        """Return what a figure is short of perfect: the share that differs. It is to be at most `most`."""
        return 1 - figure

    def __str__(self) -> str:
        return f"an agreement of at least {100 * self.share:g} %"


Bound: TypeAlias = MaxKl | MinAgreement
"""What a promise keeps. `usual_slope` is that of the logarithm of the shortfall by the logarithm of the size, and
`usual_gain` the factor by which a fit lowers the shortfall: where a search begins, before it knows better."""


def predicted_shortfall(
    bound: Bound, samples: Sequence[PredictionSums], measured: int, confidence: float, margin: float
) -> float:
    """Return the shortfall of the confidence limit that a measurement on other samples is likely to find at most.

    Parameters
    ----------
    bound : MaxKl or MinAgreement
        What is measured.
    samples : sequence of PredictionSums
        Sums over the predictions of each sample of one part.
    measured : int
        Number of samples of the other part.
    confidence : float
        Confidence of the limit there.
    margin : float
        Standard errors by which both parts may differ, such as 1 for a chance of 84 %.
    """
    # The limit that as many samples of this kind would have.
    as_many = [samples[place % len(samples)] for place in range(measured)]
    limit = bound.shortfall(bound.limit(as_many, confidence))
    # The standard error of the difference of both parts' figures.
    mean = bound.shortfall(bound.figure(samples))
    counts = [sample.predictions for sample in samples]
    totals = [sample.kl if isinstance(bound, MaxKl) else sample.predictions - sample.agreed for sample in samples]
    square = sum((total - mean * count) ** 2 for total, count in zip(totals, counts, strict=True))
    error = math.sqrt(square * len(samples) / max(1, len(samples) - 1)) / sum(counts)
    return limit + margin * error * math.sqrt(1 + len(samples) / measured)
