"""Search for the alpha of a merge with the best score, by a function of the user."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from dtscodec.errors import ConfigError

Score: TypeAlias = Callable[[Mapping[str, Tensor]], float]
"""Returns the quality of a model with these weights; higher is better. Tensors are computed on access."""

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class AlphaSearch:
    """Settings of a golden-section search for alpha, as in the authors' code of ESM for images (arXiv 2602.20208).

    The search runs on a log scale, since the best alphas of different methods differ by a factor of more than ten.

    Parameters
    ----------
    score : callable
        Takes the merged weights as a lazy mapping and returns a number; higher is better.
    low, high : float
        Bounds of alpha, above 0.
    tolerance : float
        Length of the interval at which the search ends, relative to alpha.
    steps : int
        Largest number of times that the interval is narrowed; each takes one evaluation of the score.

    Raises
    ------
    ConfigError
        A setting is out of range.
    """

    score: Score
    low: float = 0.1
    high: float = 10.0
    tolerance: float = 0.01
    steps: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high or self.tolerance <= 0 or self.steps < 1:
            raise ConfigError("expected 0 < low < high, a tolerance above 0 and at least one step")


def golden_section(function: Callable[[float], float], search: AlphaSearch) -> tuple[float, float]:
    """Return the best point that a golden-section search evaluates, and its value; each step takes one evaluation.

    Parameters
    ----------
    function : callable
        Function of alpha to maximize.
    search : AlphaSearch
        Bounds, tolerance and steps; its score is not used.

    Returns
    -------
    alpha : float
        The best point.
    value : float
        The function there.

    Examples
    --------
    >>> best, value = golden_section(lambda x: -((x - 0.7) ** 2), AlphaSearch(lambda weights: 0.0))
    >>> abs(best - 0.7) < 0.01
    True
    """
    low, high = math.log(search.low), math.log(search.high)
    evaluated: list[tuple[float, float]] = []

    def at(x: float) -> float:
        alpha = math.exp(x)
        evaluated.append((float(function(alpha)), alpha))
        return evaluated[-1][0]

    # Two points inside of the interval divide it in the golden ratio; each step reuses one of them.
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    left_value, right_value = at(left), at(right)
    for _ in range(search.steps):
        if high - low <= search.tolerance:
            break
        if left_value >= right_value:
            # The maximum lies below `right`.
            high, right, right_value = right, left, left_value
            left = high - GOLDEN * (high - low)
            left_value = at(left)
        else:
            # The maximum lies above `left`.
            low, left, left_value = left, right, right_value
            right = low + GOLDEN * (high - low)
            right_value = at(right)
    # Of equal values, the one at the smallest alpha.
    value, best = max(evaluated, key=lambda pair: (pair[0], -pair[1]))
    return best, value
