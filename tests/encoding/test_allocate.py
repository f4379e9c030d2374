"""One budget for all segments: it is not exceeded, it is used, and nearly as well as possible."""

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dtscodec.encoding.budget.allocate import (
    LAMBDA_MAX,
    LAMBDA_MIN,
    Choices,
    PackSize,
    SegmentKey,
    TooSmallError,
    allocate,
    at_multiplier,
    total_cost,
)
from dtscodec.encoding.budget.candidate import Candidate, CandidateList
from dtscodec.format.blocks import Raw

many = settings(deadline=None, max_examples=60)

Segments = dict[SegmentKey, CandidateList]


def listed(pairs: list[tuple[int, float]]) -> CandidateList:
    """Candidates of these costs and benefits, costs ascending."""
    return CandidateList(tuple(Candidate(Raw(1), cost, benefit, benefit) for cost, benefit in sorted(pairs)), 0.0)


@st.composite
def segments(draw: st.DrawFn, most: int = 8, count: int = 5) -> Segments:
    """Segments with a cheapest candidate and some others; more bytes need not have more benefit."""
    benefits = st.floats(0.125, 1e6) if draw(st.booleans()) else st.integers(1, 50).map(float)
    others = st.lists(st.tuples(st.integers(1, 500), benefits), max_size=count - 1)
    first = st.tuples(st.integers(0, 20), st.just(0.0))
    lists = draw(st.lists(st.tuples(first, others), min_size=1, max_size=most))
    return {("t", i): listed([first, *others]) for i, (first, others) in enumerate(lists)}


def with_shared(each: int, shared: int) -> PackSize:
    """A file with a header, and index bytes for each segment that is not at its cheapest."""

    def size_of(choices: Mapping[SegmentKey, Candidate]) -> int:
        return total_cost(choices) + shared + sum(each for choice in choices.values() if choice.benefit > 0)

    return size_of


measures = st.builds(with_shared, st.integers(0, 40), st.integers(0, 1000))
flat = st.builds(with_shared, st.just(0), st.integers(0, 1000))


def benefit(choices: Choices) -> float:
    return sum(choice.benefit for choice in choices.values())


def largest_benefit(candidates: Segments) -> float:
    return max(choice.benefit for listing in candidates.values() for choice in listing.candidates)


def smallest(candidates: Segments, size_of: PackSize) -> int:
    return size_of({key: listing.candidates[0] for key, listing in candidates.items()})


@many
@given(segments(), measures, st.integers(0, 3000))
def test_the_budget_is_never_exceeded(candidates: Segments, size_of: PackSize, extra: int) -> None:
    budget = smallest(candidates, size_of) + extra
    chosen = allocate(candidates, budget, size_of)
    assert size_of(chosen) <= budget
    assert list(chosen) == list(candidates)
    assert all(chosen[key] in listing.candidates for key, listing in candidates.items())


@many
@given(segments(), measures, st.integers(1, 1000))
def test_a_budget_below_the_cheapest_choices_raises_with_the_smallest_that_does(
    candidates: Segments, size_of: PackSize, less: int
) -> None:
    least = smallest(candidates, size_of)
    with pytest.raises(TooSmallError) as caught:
        allocate(candidates, least - less, size_of)
    assert caught.value.smallest == least
    assert size_of(allocate(candidates, least, size_of)) == least


@many
@given(segments(), measures)
def test_a_large_budget_buys_the_most_of_every_segment(candidates: Segments, size_of: PackSize) -> None:
    chosen = allocate(candidates, 10**6, size_of)
    for key, listing in candidates.items():
        assert chosen[key].benefit == max(choice.benefit for choice in listing.candidates)


@many
@given(segments(), flat, st.integers(0, 2000), st.integers(0, 2000))
def test_a_larger_budget_never_lowers_the_benefit_by_more_than_that_of_one_option(
    candidates: Segments, size_of: PackSize, extra: int, more: int
) -> None:
    budget = smallest(candidates, size_of) + extra
    poorer, richer = (benefit(allocate(candidates, size, size_of)) for size in (budget, budget + more))
    assert richer >= poorer - largest_benefit(candidates) * (1 + 1e-9)


@many
@given(segments(most=5, count=4), flat, st.integers(0, 1500))
def test_the_benefit_is_within_one_candidate_of_the_best(candidates: Segments, size_of: PackSize, extra: int) -> None:
    budget = smallest(candidates, size_of) + extra
    keys = list(candidates)
    every = (dict(zip(keys, chosen, strict=True)) for chosen in product(*(candidates[key].candidates for key in keys)))
    best = max(benefit(choices) for choices in every if size_of(choices) <= budget)
    found = benefit(allocate(candidates, budget, size_of))
    assert best - largest_benefit(candidates) * (1 + 1e-9) <= found <= best * (1 + 1e-9)


@many
@given(segments(), flat, st.integers(0, 2000))
def test_no_better_candidate_that_still_fits_is_left(candidates: Segments, size_of: PackSize, extra: int) -> None:
    budget = smallest(candidates, size_of) + extra
    chosen = allocate(candidates, budget, size_of)
    for key, listing in candidates.items():
        for choice in listing.upgrades(chosen[key]):
            assert size_of(chosen | {key: choice}) > budget


@many
@given(segments(), measures, st.integers(0, 2000))
def test_the_same_segments_get_the_same_choices(candidates: Segments, size_of: PackSize, extra: int) -> None:
    budget = smallest(candidates, size_of) + extra
    assert allocate(candidates, budget, size_of) == allocate(candidates, budget, size_of)


@many
@given(segments(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_higher_multiplier_never_costs_more_bytes(candidates: Segments, multiplier: int, more: int) -> None:
    cheap, dear = multiplier / 8, (multiplier + more) / 8
    assert total_cost(at_multiplier(candidates, dear)) <= total_cost(at_multiplier(candidates, cheap))


@many
@given(segments(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_higher_multiplier_never_buys_more_benefit(candidates: Segments, multiplier: int, more: int) -> None:
    cheap, dear = multiplier / 8, (multiplier + more) / 8
    assert benefit(at_multiplier(candidates, dear)) <= benefit(at_multiplier(candidates, cheap)) * (1 + 1e-12)


@many
@given(segments())
def test_the_largest_multiplier_buys_the_cheapest_choices_and_the_cheapest_the_most_benefit(
    candidates: Segments,
) -> None:
    dear, cheap = at_multiplier(candidates, LAMBDA_MAX), at_multiplier(candidates, LAMBDA_MIN)
    for key, listing in candidates.items():
        assert dear[key].cost == min(choice.cost for choice in listing.candidates)
        assert cheap[key].benefit == max(choice.benefit for choice in listing.candidates)


@many
@given(segments(), st.floats(1e-3, 1e4))
def test_no_choices_of_the_same_bytes_have_more_benefit_than_those_at_a_multiplier(
    candidates: Segments, multiplier: float
) -> None:
    chosen = at_multiplier(candidates, multiplier)
    for key, listing in candidates.items():
        for other in listing.candidates:
            if other.cost <= chosen[key].cost:
                assert other.benefit <= chosen[key].benefit * (1 + 1e-9) + multiplier * 1e-9


@many
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 400))
def test_steps_of_one_price_are_bought_as_far_as_the_budget_goes(count: int, steps: int, budget: int) -> None:
    # All steps tie: bisection buys all of them or none, and what is left has to buy them one by one.
    candidates = {("t", i): listed([(10 * step, 7.0 * step) for step in range(steps + 1)]) for i in range(count)}
    assume(budget < 10 * steps * count)
    assert benefit(allocate(candidates, budget, total_cost)) == 7.0 * (budget // 10)


@many
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 600), st.integers(1, 200))
def test_steps_of_one_price_are_bought_before_those_of_less_benefit(
    count: int, steps: int, budget: int, cost: int
) -> None:
    candidates = {("t", i): listed([(10 * step, 20.0 * step) for step in range(steps + 1)]) for i in range(count)}
    candidates["u", 0] = listed([(0, 0.0), (cost, 1 / 16)])
    first = sum(choice.benefit for key, choice in allocate(candidates, budget, total_cost).items() if key[0] == "t")
    assert first == 20.0 * min(budget // 10, count * steps)
