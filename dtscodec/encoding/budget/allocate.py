"""One budget of bytes for a whole checkpoint, shared among the candidate encodings of all segments.

Every segment takes the candidate that maximizes benefit - lambda * cost, with one Lagrange multiplier lambda for all
segments, as in bit allocation (Y. Shoham and A. Gersho, 1988). Lambda is found by bisection. The rest of the budget is
then spent on single components, in descending order of benefit per byte.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dtscodec.encoding.budget.candidate import Candidate, Candidates

SegmentKey: TypeAlias = tuple[str, int]
"""A segment: the name of its tensor, and its place among the tensor's segments."""
Choices: TypeAlias = dict[SegmentKey, Candidate]
"""The candidate that each segment takes."""
TensorChoices: TypeAlias = Mapping[str, Sequence[Candidate]]
"""Choices grouped by tensor: one candidate for each segment, in order."""
PackSize: TypeAlias = Callable[[Mapping[SegmentKey, Candidate]], int]
"""Returns the size of the pack file for some choices, in bytes."""

LAMBDA_BISECTIONS = 80
"""Bisections of the multiplier's logarithm: they reach the last bit of a double."""
LAMBDA_MAX = 1e200
LAMBDA_MIN = 1e-200
"""Multipliers beyond any quotient of a squared norm of float32 numbers and a number of bytes."""
OVERHEAD_ROUNDS = 12
"""Most corrections of the bytes that segments share, which depend on the choices."""


@dataclass(frozen=True, slots=True)
class TooSmallError(Exception):
    """Not even the cheapest candidates fit into a budget.

    Parameters
    ----------
    smallest : int
        Size of the file with the cheapest candidates, in bytes.
    """

    smallest: int


def at_multiplier(candidates: Mapping[SegmentKey, Candidates], multiplier: float) -> Choices:
    """Return each segment's best candidate at a Lagrange multiplier.

    Parameters
    ----------
    candidates : mapping
        Candidate encodings of each segment.
    multiplier : float
        Benefit per byte below which no bytes are spent.
    """
    return {key: each.best(multiplier) for key, each in candidates.items()}


def at_last_multiplier(
    candidates: Mapping[SegmentKey, Candidates], begin: float, end: float, holds: Callable[[Choices], bool]
) -> Choices:
    """Return the choices at the last multiplier, from `begin` towards `end`, at which a condition holds.

    Parameters
    ----------
    candidates : mapping
        Candidate encodings of each segment.
    begin, end : float
        Multipliers; the condition holds at `begin`.
    holds : callable
        The condition on choices: it holds up to some multiplier and not beyond.
    """
    chosen = at_multiplier(candidates, begin)
    for _ in range(LAMBDA_BISECTIONS):
        multiplier = begin**0.5 * end**0.5  # Bisect the logarithm: multipliers span 400 orders of magnitude.
        trial = at_multiplier(candidates, multiplier)
        if holds(trial):
            chosen, begin = trial, multiplier
        else:
            end = multiplier
    return chosen


def allocate(candidates: Mapping[SegmentKey, Candidates], budget: int, size_of: PackSize) -> Choices:
    """Return the choices of the largest benefit in a file of at most `budget` bytes.

    Parameters
    ----------
    candidates : mapping
        Candidate encodings of each segment.
    budget : int
        Bytes.
    size_of : callable
        Returns the exact size of the file. Costs do not include what segments share, such as index and checksums.

    Raises
    ------
    TooSmallError
        The cheapest candidates take more.
    """
    # The cheapest candidates, and the bytes that segments share with them.
    chosen = at_multiplier(candidates, LAMBDA_MAX)
    smallest = size_of(chosen)
    if smallest > budget:
        raise TooSmallError(smallest)
    overhead = smallest - total_cost(chosen)
    for _ in range(OVERHEAD_ROUNDS):
        # Spend what the overhead leaves, then correct these by the size of the file.
        trial = _spend(candidates, budget - overhead)
        size = size_of(trial)
        if size <= budget:
            chosen = trial
        # The estimate is at most 8 bytes too low. Where it is too high, `_fill` spends the difference.
        if size <= budget and overhead >= size - total_cost(trial) - 8:
            break
        overhead = size - total_cost(trial)
    # No single multiplier spends the budget to the last byte.
    return _fill(candidates, chosen, budget, size_of)


def _spend(candidates: Mapping[SegmentKey, Candidates], payload: int) -> Choices:
    """Return the best choices at a total cost of at most `payload` bytes."""
    # At a multiplier near 0, segments take all that adds benefit.
    everything = at_multiplier(candidates, LAMBDA_MIN)
    if total_cost(everything) <= payload:
        return everything
    return at_last_multiplier(candidates, LAMBDA_MAX, LAMBDA_MIN, lambda trial: total_cost(trial) <= payload)


def _fill(candidates: Mapping[SegmentKey, Candidates], chosen: Choices, budget: int, size_of: PackSize) -> Choices:
    """Spend the rest of the budget on better candidates for single segments, until no more fit."""
    left = budget - size_of(chosen)
    while left > 0:
        trial = _buy(candidates, chosen, left)
        spent = total_cost(trial) - total_cost(chosen)
        if not spent:
            break
        size = size_of(trial)
        if size <= budget:
            chosen, left = trial, budget - size
        else:
            # Costs and the file's size differ a little: try to spend less.
            left = min(left, spent) - max(1, size - budget)
    return chosen


def _buy(candidates: Mapping[SegmentKey, Candidates], chosen: Choices, left: int) -> Choices:
    """Return better choices for at most `left` more bytes, found greedily by benefit per byte."""
    trial = dict(chosen)
    # A heap of upgrades, the one of most benefit per byte first; the count orders ties.
    offers: list[tuple[float, int, SegmentKey, Candidate, Candidate]] = []
    count = itertools.count()

    def offer(key: SegmentKey) -> None:
        held = trial[key]
        for choice in candidates[key].upgrades(held):
            extra, gained = choice.cost - held.cost, choice.benefit - held.benefit
            if 0 < extra <= left and gained > 0:
                heapq.heappush(offers, (-gained / extra, next(count), key, held, choice))

    for key in candidates:
        offer(key)
    while offers:
        _, _, key, held, choice = heapq.heappop(offers)
        # Offers from a candidate that has been replaced meanwhile are void.
        if trial[key] is held and choice.cost - held.cost <= left:
            trial[key] = choice
            left -= choice.cost - held.cost
            offer(key)
    return trial


def total_cost(choices: Mapping[SegmentKey, Candidate]) -> int:
    """Return the bytes of all choices, without those that segments share.

    Parameters
    ----------
    choices : mapping
        The candidate that each segment takes.
    """
    return sum(choice.cost for choice in choices.values())
