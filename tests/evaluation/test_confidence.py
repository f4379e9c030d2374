"""Confidence limits: they cover the true mean as often as they promise, and are never below the mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.evaluation import confidence
from dtscodec.evaluation.confidence import agreement_limit, kl_limit, mean_limit, share_limit
from dtscodec.evaluation.distributions import beta_probability, beta_quantile, student_quantile
from dtscodec.evaluation.prediction_sums import PredictionSums

RUNS = 400


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    # Tables of Student's t, as in any textbook.
    [(0.95, 1, 6.3138), (0.95, 31, 1.6955), (0.95, 127, 1.6569), (0.99, 63, 2.3870), (0.96, 1, 7.9158)],
)
def test_quantiles_of_student_equal_the_tables(probability: float, freedom: int, quantile: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(quantile, abs=5e-4)


@given(st.floats(0.5, 1e6), st.floats(0.5, 1e6), st.floats(0.01, 0.99))
def test_a_quantile_is_the_inverse_of_the_probability(a: float, b: float, probability: float) -> None:
    assert beta_probability(beta_quantile(probability, a, b), a, b) == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("spread", [0.3, 0.6])
@pytest.mark.parametrize("samples", [32, 128])
def test_limits_of_a_mean_cover_it(samples: int, spread: float) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(60, 128, (RUNS, samples))
    # The mean KL of a text is about log-normal; its true mean is 1 here.
    means = np.exp(generator.normal(-(spread**2) / 2, spread, counts.shape))
    kept = [mean_limit(list(m * c), list(c)) >= 1 for m, c in zip(means, counts, strict=True)]
    assert np.mean(kept) >= 0.91


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("correlation", [0.01, 0.03])
def test_limits_of_a_share_cover_it_also_near_0(share: float, correlation: float) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(60, 128, (RUNS, 32))
    # Hits are correlated within a text: their share in it has a beta distribution.
    size = 1 / correlation - 1
    hits = generator.binomial(counts, generator.beta(share * size, (1 - share) * size, counts.shape))
    kept = [share_limit(h.tolist(), c.tolist()) >= share for h, c in zip(hits, counts, strict=True)]
    assert np.mean(kept) >= 0.92


@pytest.mark.parametrize("share", [0.001, 0.03, 0.2])
def test_limits_of_a_share_cover_it_with_one_prediction_for_each_sample(share: float) -> None:
    hits = np.random.default_rng(0).binomial(1, share, (RUNS, 32))
    assert np.mean([share_limit(h.tolist(), [1] * 32) >= share for h in hits]) >= 0.93


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=2, max_size=20))
def test_a_limit_is_never_on_the_wrong_side_of_the_figure(pairs: list[tuple[int, int]]) -> None:
    samples = [PredictionSums(count, kl=min(hits, count) / 7, agreed=count - min(hits, count)) for count, hits in pairs]
    total = sum(samples, PredictionSums())
    assert kl_limit(samples) >= total.kl / total.predictions
    assert 0 <= agreement_limit(samples) <= total.agreed / total.predictions


def test_no_hit_at_all_leaves_a_limit_above_0() -> None:
    assert 0 < share_limit([0] * 32, [100] * 32) < 0.01
    # Predictions of one text are not independent: fewer, longer texts say less.
    assert share_limit([0] * 32, [100] * 32) > share_limit([0] * 3200, [1] * 3200)


def test_all_hits_have_the_limit_1() -> None:
    assert share_limit([3, 4], [3, 4]) == 1


def test_a_higher_confidence_has_a_wider_limit() -> None:
    totals, counts = [1.0, 2.0, 4.0], [2, 2, 3]
    assert mean_limit(totals, counts, 0.99) > mean_limit(totals, counts, 0.96) > mean_limit(totals, counts)
    assert confidence.CONFIDENCE == 0.95
