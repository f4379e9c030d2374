"""Upper confidence limits of means over predictions, where the samples, not the predictions, are independent.

A mean over predictions is a ratio of two sums over samples (Cochran, Sampling Techniques, 3rd edition, section 6.3).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dtscodec.evaluation.distributions import beta_quantile, student_quantile
from dtscodec.evaluation.prediction_sums import PredictionSums

CONFIDENCE = 0.95
"""Probability with which a limit is kept."""
LEAST_CORRELATION = 0.02
"""Least correlation that is assumed between predictions of one sample: where hits are few, it cannot be estimated."""


def kl_limit(samples: Sequence[PredictionSums], confidence: float = CONFIDENCE) -> float:
    """Return an upper confidence limit of the mean KL, in nats; see `mean_limit`.

    Parameters
    ----------
    samples : sequence of PredictionSums
        Sums over the predictions of each sample, at least two.
    confidence : float
        Probability that the limit is at least the true mean.
    """
    return max(0.0, mean_limit([s.kl for s in samples], [s.predictions for s in samples], confidence))


def agreement_limit(samples: Sequence[PredictionSums], confidence: float = CONFIDENCE) -> float:
    """Return a lower confidence limit of the agreement; see `share_limit`.

    Parameters
    ----------
    samples : sequence of PredictionSums
        Sums over the predictions of each sample, at least two.
    confidence : float
        Probability that the limit is at most the true agreement.
    """
    counts = [sample.predictions for sample in samples]
    return 1 - share_limit([sample.predictions - sample.agreed for sample in samples], counts, confidence)


def mean_limit(totals: Sequence[float], counts: Sequence[int], confidence: float = CONFIDENCE) -> float:
    """Return a one-sided upper confidence limit of a mean: sum of `totals` / sum of `counts`.

    The larger of Student's limit and the same with Johnson's correction for skewness ("Modified t tests and confidence
    intervals for asymmetrical populations", JASA 73, 1978): of quantities with a long upper tail, such as the KL, the
    plain limit is too low more often than it promises.

    Parameters
    ----------
    totals : sequence of float
        Sum of the quantity over the predictions of each sample.
    counts : sequence of int
        Number of predictions of each sample, at least 1; at least two samples.
    confidence : float
        Probability that the limit is at least the true mean.

    Examples
    --------
    >>> round(mean_limit([1.0, 2.0, 3.0, 2.0], [2, 2, 2, 2]), 3)
    1.48
    """
    size, mean, residuals = len(counts), sum(totals) / sum(counts), _residuals(totals, counts)
    error = _standard_error(residuals, counts)
    if error <= 1e-12 * abs(mean):  # No more than rounding.
        return mean
    t = student_quantile(confidence, size - 1)
    scaled = residuals / np.abs(residuals).max()  # Cubes of rounding errors would vanish.
    skewness = float(np.mean(scaled**3) / np.std(scaled) ** 3)
    correction = max(0.0, skewness) * (1 + 2 * t * t) / (6 * math.sqrt(size))
    return mean + error * (t + correction)


def share_limit(hits: Sequence[int], counts: Sequence[int], confidence: float = CONFIDENCE) -> float:
    """Return a one-sided upper confidence limit of a share: sum of `hits` / sum of `counts`.

    The larger of `mean_limit` and the limit of Clopper and Pearson (Biometrika 26, 1934) for the effective number of
    predictions (Korn and Graubard, Survey Methodology 24, 1998), which is never 0: no hit among few predictions does
    not mean that there are none.

    Parameters
    ----------
    hits : sequence of int
        Number of predictions of each sample that count.
    counts, confidence
        As for `mean_limit`.

    Examples
    --------
    >>> round(share_limit([0] * 32, [1] * 32), 3), round(share_limit([0] * 32, [100] * 32), 5)
    (0.089, 0.00279)
    """
    share = sum(hits) / sum(counts)
    effective = _effective_number(hits, counts)
    limit = beta_quantile(confidence, share * effective + 1, (1 - share) * effective) if share < 1 else 1.0
    return min(1.0, max(limit, mean_limit(hits, counts, confidence)))


def _effective_number(hits: Sequence[int], counts: Sequence[int]) -> float:
    """Return the number of independent predictions with the variance of these, which are correlated within samples."""
    total, share = sum(counts), sum(hits) / sum(counts)
    # The factor on the variance (Kish's design effect): estimated, and at the least correlation.
    estimated = _standard_error(_residuals(hits, counts), counts) ** 2 * total / (share * (1 - share) or 1.0)
    mean_size = sum(count * count for count in counts) / total
    return total / max(estimated, 1 + LEAST_CORRELATION * (mean_size - 1))


def _residuals(totals: Sequence[float], counts: Sequence[int]) -> NDArray[np.float64]:
    """Return what each sample's total differs from the mean of as many predictions: float64 [samples]."""
    return np.array(totals, np.float64) - sum(totals) / sum(counts) * np.array(counts, np.float64)


def _standard_error(residuals: NDArray[np.float64], counts: Sequence[int]) -> float:
    size = len(counts)
    return float(np.sqrt(np.square(residuals).sum() * size / (size - 1))) / sum(counts)
