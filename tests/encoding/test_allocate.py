"""One budget for all pieces: it is kept, used, and spent nearly as well as it can be."""

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dtscodec.encoding.budget.allocate import (
    LAMBDA_MAX,
    LAMBDA_MIN,
    Choices,
    Key,
    Measure,
    TooSmallError,
    allocate,
    at_multiplier,
    total_cost,
)
from dtscodec.encoding.budget.candidate import Candidate, CandidateList
from dtscodec.format.blocks import Raw

many = settings(deadline=None, max_examples=60)

Pieces = dict[Key, CandidateList]


def listed(ways: list[tuple[int, float]]) -> CandidateList:
    """Options of these costs and worths, costs ascending."""
    return CandidateList(tuple(Candidate(Raw(1), cost, worth, worth) for cost, worth in sorted(ways)), 0.0)


@st.composite
def pieces(draw: st.DrawFn, most: int = 8, ways: int = 5) -> Pieces:
    """Pieces with a cheapest option and some others; more bytes need not be worth more."""
    worths = st.floats(0.125, 1e6) if draw(st.booleans()) else st.integers(1, 50).map(float)
    others = st.lists(st.tuples(st.integers(1, 500), worths), max_size=ways - 1)
    first = st.tuples(st.integers(0, 20), st.just(0.0))
    lists = draw(st.lists(st.tuples(first, others), min_size=1, max_size=most))
    return {("t", i): listed([first, *others]) for i, (first, others) in enumerate(lists)}


def with_shared(each: int, shared: int) -> Measure:
    """A file with a header, and index bytes for each piece that is not at its cheapest."""

    def size_of(choices: Mapping[Key, Candidate]) -> int:
        return total_cost(choices) + shared + sum(each for choice in choices.values() if choice.benefit > 0)

    return size_of


measures = st.builds(with_shared, st.integers(0, 40), st.integers(0, 1000))
flat = st.builds(with_shared, st.just(0), st.integers(0, 1000))


def worth(choices: Choices) -> float:
    return sum(choice.benefit for choice in choices.values())


def largest_worth(options: Pieces) -> float:
    return max(choice.benefit for option in options.values() for choice in option.candidates)


def smallest(options: Pieces, size_of: Measure) -> int:
    return size_of({key: option.candidates[0] for key, option in options.items()})


@many
@given(pieces(), measures, st.integers(0, 3000))
def test_the_budget_is_never_exceeded(options: Pieces, size_of: Measure, extra: int) -> None:
    budget = smallest(options, size_of) + extra
    chosen = allocate(options, budget, size_of)
    assert size_of(chosen) <= budget
    assert list(chosen) == list(options)
    assert all(chosen[key] in option.candidates for key, option in options.items())


@many
@given(pieces(), measures, st.integers(1, 1000))
def test_a_budget_below_the_cheapest_choices_raises_with_the_smallest_that_does(
    options: Pieces, size_of: Measure, less: int
) -> None:
    least = smallest(options, size_of)
    with pytest.raises(TooSmallError) as caught:
        allocate(options, least - less, size_of)
    assert caught.value.smallest == least
    assert size_of(allocate(options, least, size_of)) == least


@many
@given(pieces(), measures)
def test_an_ample_budget_buys_the_most_of_every_piece(options: Pieces, size_of: Measure) -> None:
    chosen = allocate(options, 10**6, size_of)
    for key, option in options.items():
        assert chosen[key].benefit == max(choice.benefit for choice in option.candidates)


@many
@given(pieces(), flat, st.integers(0, 2000), st.integers(0, 2000))
def test_a_larger_budget_never_lowers_the_worth_by_more_than_that_of_one_option(
    options: Pieces, size_of: Measure, extra: int, more: int
) -> None:
    budget = smallest(options, size_of) + extra
    poorer, richer = (worth(allocate(options, size, size_of)) for size in (budget, budget + more))
    assert richer >= poorer - largest_worth(options) * (1 + 1e-9)


@many
@given(pieces(most=5, ways=4), flat, st.integers(0, 1500))
def test_the_worth_is_within_one_option_of_the_best_there_is(options: Pieces, size_of: Measure, extra: int) -> None:
    budget = smallest(options, size_of) + extra
    keys = list(options)
    every = (dict(zip(keys, chosen, strict=True)) for chosen in product(*(options[key].candidates for key in keys)))
    best = max(worth(choices) for choices in every if size_of(choices) <= budget)
    found = worth(allocate(options, budget, size_of))
    assert best - largest_worth(options) * (1 + 1e-9) <= found <= best * (1 + 1e-9)


@many
@given(pieces(), flat, st.integers(0, 2000))
def test_nothing_better_that_still_fits_is_left_unbought(options: Pieces, size_of: Measure, extra: int) -> None:
    budget = smallest(options, size_of) + extra
    chosen = allocate(options, budget, size_of)
    for key, option in options.items():
        for choice in option.upgrades(chosen[key]):
            assert size_of(chosen | {key: choice}) > budget


@many
@given(pieces(), measures, st.integers(0, 2000))
def test_the_same_pieces_get_the_same_choices(options: Pieces, size_of: Measure, extra: int) -> None:
    budget = smallest(options, size_of) + extra
    assert allocate(options, budget, size_of) == allocate(options, budget, size_of)


@many
@given(pieces(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_higher_price_never_costs_more_bytes(options: Pieces, price: int, more: int) -> None:
    cheap, dear = price / 8, (price + more) / 8
    assert total_cost(at_multiplier(options, dear)) <= total_cost(at_multiplier(options, cheap))


@many
@given(pieces(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_higher_price_never_buys_more_worth(options: Pieces, price: int, more: int) -> None:
    cheap, dear = price / 8, (price + more) / 8
    assert worth(at_multiplier(options, dear)) <= worth(at_multiplier(options, cheap)) * (1 + 1e-12)


@many
@given(pieces())
def test_the_dearest_price_buys_the_cheapest_choices_and_the_cheapest_the_most_worth(options: Pieces) -> None:
    dear, cheap = at_multiplier(options, LAMBDA_MAX), at_multiplier(options, LAMBDA_MIN)
    for key, option in options.items():
        assert dear[key].cost == min(choice.cost for choice in option.candidates)
        assert cheap[key].benefit == max(choice.benefit for choice in option.candidates)


@many
@given(pieces(), st.floats(1e-3, 1e4))
def test_no_choices_of_the_same_bytes_are_worth_more_than_those_at_a_price(options: Pieces, price: float) -> None:
    chosen = at_multiplier(options, price)
    for key, option in options.items():
        for other in option.candidates:
            if other.cost <= chosen[key].cost:
                assert other.benefit <= chosen[key].benefit * (1 + 1e-9) + price * 1e-9


@many
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 400))
def test_steps_of_one_price_are_bought_as_far_as_the_budget_goes(count: int, steps: int, budget: int) -> None:
    # All steps tie: bisection buys all of them or none, and what is left has to buy them one by one.
    options = {("t", i): listed([(10 * step, 7.0 * step) for step in range(steps + 1)]) for i in range(count)}
    assume(budget < 10 * steps * count)
    assert worth(allocate(options, budget, total_cost)) == 7.0 * (budget // 10)


@many
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 600), st.integers(1, 200))
def test_steps_of_one_price_are_bought_before_what_is_worth_less(
    count: int, steps: int, budget: int, cost: int
) -> None:
    options = {("t", i): listed([(10 * step, 20.0 * step) for step in range(steps + 1)]) for i in range(count)}
    options["u", 0] = listed([(0, 0.0), (cost, 1 / 16)])
    first = sum(choice.benefit for key, choice in allocate(options, budget, total_cost).items() if key[0] == "t")
    assert first == 20.0 * min(budget // 10, count * steps)
