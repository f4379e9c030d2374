"""The least of some times: what a piece of work takes when nothing else disturbs it."""

import time
from collections.abc import Callable
from typing import TypeVar

REPEATS = 3
RESULT = TypeVar("RESULT")


def timed(work: Callable[[], RESULT], repeats: int = REPEATS, enough: float = 0.0) -> tuple[RESULT, float]:
    """What some work gives, and the least seconds that it took.

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
