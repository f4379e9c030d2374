"""One budget for a whole checkpoint: which of all pieces' options are paid for.

Every piece takes the option of the largest worth minus price times bytes, at one price for all: what Lagrange's
multiplier does for bit allocation (Y. Shoham and A. Gersho, 1988). The price is found by bisection; what is left of the
budget then buys single components, the most worth for their bytes first.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.encoding.budget.candidate import Candidate, Candidates

Key: TypeAlias = tuple[str, int]
"""A piece: its tensor's name, and its place in it."""
Choices: TypeAlias = dict[Key, Candidate]
Measure: TypeAlias = Callable[[Mapping[Key, Candidate]], int]
"""Size of the pack file for some choices, in bytes."""

HALVINGS = 80
DEAREST = 1e200
CHEAPEST = 1e-200
"""Prices beyond any that squares of float32 numbers and bytes can ask for."""
ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class TooSmallError(Exception):
    """Not even the cheapest choices fit a budget."""

    smallest: int


def at_price(options: Mapping[Key, Candidates], price: float) -> Choices:
    """Every piece's best choice at a price: squared norm for a byte."""
    return {key: option.best(price) for key, option in options.items()}


def at_last_price(
    options: Mapping[Key, Candidates], begin: float, end: float, holds: Callable[[Choices], bool]
) -> Choices:
    """The choices at the price nearest to `end` at which something holds that holds at `begin`: by bisection."""
    chosen = at_price(options, begin)
    for _ in range(HALVINGS):
        price = begin**0.5 * end**0.5
        trial = at_price(options, price)
        if holds(trial):
            chosen, begin = trial, price
        else:
            end = price
    return chosen


def allocate(options: Mapping[Key, Candidates], budget: int, size_of: Measure) -> Choices:
    """The choices of most worth in a file of at most `budget` bytes.

    Parameters
    ----------
    options : mapping
    budget : int
        Bytes.
    size_of : callable
        Exact size of the file. Costs leave out what is shared, such as index and checksums.

    Raises
    ------
    TooSmallError
        The cheapest choices take more.
    """
    chosen = at_price(options, DEAREST)
    smallest = size_of(chosen)
    if smallest > budget:
        raise TooSmallError(smallest)
    shared = smallest - total_cost(chosen)
    for _ in range(ATTEMPTS):
        trial = _spend(options, budget - shared)
        size = size_of(trial)
        if size <= budget:
            chosen = trial
        if size <= budget and shared >= size - total_cost(trial) - 8:
            break
        shared = size - total_cost(trial)
    return _fill(options, chosen, budget, size_of)


def _spend(options: Mapping[Key, Candidates], payload: int) -> Choices:
    """The best choices whose costs add up to at most so many bytes."""
    everything = at_price(options, CHEAPEST)
    if total_cost(everything) <= payload:
        return everything
    return at_last_price(options, DEAREST, CHEAPEST, lambda trial: total_cost(trial) <= payload)


def _fill(options: Mapping[Key, Candidates], chosen: Choices, budget: int, size_of: Measure) -> Choices:
    """Buy what still fits, until nothing does."""
    left = budget - size_of(chosen)
    while left > 0:
        trial = _buy(options, chosen, left)
        spent = total_cost(trial) - total_cost(chosen)
        if not spent:
            break
        size = size_of(trial)
        if size <= budget:
            chosen, left = trial, budget - size
        else:
            left = min(left, spent) - max(1, size - budget)
    return chosen


def _buy(options: Mapping[Key, Candidates], chosen: Choices, left: int) -> Choices:
    """Better choices for at most so many bytes more, the most worth for a byte first."""
    trial = dict(chosen)
    offers: list[tuple[float, int, Key, Candidate, Candidate]] = []
    count = itertools.count()

    def offer(key: Key) -> None:
        held = trial[key]
        for choice in options[key].upgrades(held):
            extra, gained = choice.cost - held.cost, choice.benefit - held.benefit
            if 0 < extra <= left and gained > 0:
                heapq.heappush(offers, (-gained / extra, next(count), key, held, choice))

    for key in options:
        offer(key)
    while offers:
        _, _, key, held, choice = heapq.heappop(offers)
        if trial[key] is held and choice.cost - held.cost <= left:
            trial[key] = choice
            left -= choice.cost - held.cost
            offer(key)
    return trial


def total_cost(choices: Mapping[Key, Candidate]) -> int:
    """Bytes of all choices, without what they share."""
    return sum(choice.cost for choice in choices.values())
