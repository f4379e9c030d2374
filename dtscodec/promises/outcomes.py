"""The two ends of a search: a claim about the pack that keeps a promise, or an error with the best that was reached."""

import math
from collections.abc import Mapping, Sequence

from dtscodec.errors import PromiseError, Remedy
from dtscodec.evaluation.confidence import CONFIDENCE
from dtscodec.evaluation.prediction_sums import PredictionSums
from dtscodec.format.claim import UNIT, Claim
from dtscodec.messages import size as size_words
from dtscodec.packs.claims import measure_words
from dtscodec.promises.bounds import Bound, MaxKl
from dtscodec.promises.size_search import SizeSearch
from dtscodec.promises.trials import Trial


def claim_of(bound: Bound, samples: Sequence[PredictionSums], limit: float, digest: str) -> Claim:
    """Return the claim that a bound is kept.

    Parameters
    ----------
    bound : MaxKl or MinAgreement
        The promise.
    samples : sequence of PredictionSums
        Sums of the samples that the pack was measured on.
    limit : float
        The confidence limit, which meets the bound.
    digest : str
        Digest of the samples.
    """
    # Rounded so that the limit is not better than it is, and meets the bound that it meets.
    value, figure = round(bound.value * UNIT), round(bound.figure(samples) * UNIT)
    if isinstance(bound, MaxKl):
        stored = min(value, math.ceil(limit * UNIT))
        figure = min(figure, stored)
    else:
        stored = max(value, math.floor(limit * UNIT))
        figure = max(figure, stored)
    predictions = sum(sample.predictions for sample in samples)
    confidence = round(CONFIDENCE * UNIT)
    return Claim(bound.measure, value, figure, stored, confidence, len(samples), predictions, digest)


def not_kept(bound: Bound, best: Trial, measured: Mapping[int, float], search: SizeSearch) -> PromiseError:
    """Return the error about a promise that no pack was found to keep.

    Parameters
    ----------
    bound : MaxKl or MinAgreement
        The promise.
    best : Trial
        The best pack that was tried.
    measured : mapping of int to float
        Confidence limits of the packs that were measured, by size.
    search : SizeSearch
        The search, for the largest size.
    """
    figure = _words(bound, bound.figure(best.samples))
    limit = f", measured limit {_words(bound, measured[best.size])}" if best.size in measured else ""
    detail = f"expected {bound} in at most {size_words(search.most)}, got {figure} in {size_words(best.size)}{limit}"
    remedy = "allow a larger {size}" if best.size >= search.most else "give more samples, or a looser bound"
    return PromiseError(f"promise: {detail}", Remedy(remedy))


def _words(bound: Bound, figure: float) -> str:
    return measure_words(bound.measure, round(figure * UNIT))
