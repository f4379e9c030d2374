"""Searching alpha: where a user's score is best."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from dtscodec.errors import ConfigError

Score: TypeAlias = Callable[[Mapping[str, Tensor]], float]
"""Says how good a model of these weights is: more is better. Tensors are made when they are asked for."""

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Search:
    """A golden-section search of alpha, as the authors of ESM do it for images, but of its logarithm.

    Alpha is a factor, and which one serves best depends on the method by more than ten times.

    Parameters
    ----------
    score : callable
        Gets the merged weights as a lazy mapping.
    low, high : float
        Where to search: above 0.
    tolerance : float
        The interval's length at which it ends, as a share of alpha.
    steps : int
        How often it is narrowed, at most.
    """

    score: Score
    low: float = 0.1
    high: float = 10.0
    tolerance: float = 0.01
    steps: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high or self.tolerance <= 0 or self.steps < 1:
            raise ConfigError("expected 0 < low < high, a tolerance above 0 and at least one step")


def golden_section(function: Callable[[float], float], search: Search) -> tuple[float, float]:
    """The best of the points that a golden-section search looks at, and its value; one evaluation a step.

    >>> best, value = golden_section(lambda x: -((x - 0.7) ** 2), Search(lambda weights: 0.0))
    >>> abs(best - 0.7) < 0.01
    True
    """
    low, high = math.log(search.low), math.log(search.high)
    seen: list[tuple[float, float]] = []

    def at(x: float) -> float:
        alpha = math.exp(x)
        seen.append((float(function(alpha)), alpha))
        return seen[-1][0]

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    left_value, right_value = at(left), at(right)
    for _ in range(search.steps):
        if high - low <= search.tolerance:
            break
        if left_value >= right_value:
            high, right, right_value = right, left, left_value
            left = high - GOLDEN * (high - low)
            left_value = at(left)
        else:
            low, left, left_value = left, right, right_value
            right = low + GOLDEN * (high - low)
            right_value = at(right)
    value, best = max(seen, key=lambda pair: (pair[0], -pair[1]))
    return best, value
