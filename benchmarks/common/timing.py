"""Seconds of a piece of work: the least of some times, and medians of several ways in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

REPEATS, TURNS = 3, 20
RESULT = TypeVar("RESULT")


def least_time(work: Callable[[], RESULT], repeats: int = REPEATS, enough: float = 0.0) -> tuple[RESULT, float]:
    """Return the result of some work, and the least seconds that it took: what it takes when nothing disturbs it.

    Parameters
    ----------
    work : callable
    repeats : int
        How often it is done, at least once.
    enough : float
        Seconds that all repeats together must take: short work is repeated more often.
    """
    result, least = _once(work)
    total, count = least, 1
    while count < repeats or total < enough:
        result, seconds = _once(work)
        least, total, count = min(least, seconds), total + seconds, count + 1
    return result, least


def _once(work: Callable[[], RESULT]) -> tuple[RESULT, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def median_times(ways: Mapping[str, Callable[[], object]], turns: int = TURNS) -> dict[str, float]:
    """Return the median seconds of each way, taken in turn, so that all meet the same moments of a machine.

    One turn before the others does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}
