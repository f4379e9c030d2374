"""The smallest pack whose error is at most a given one."""

from collections.abc import Callable

from dtscodec.encoding.budget.allocate import CHEAPEST, DEAREST, Choices, at_last_price, at_price, total_cost
from dtscodec.encoding.budget.survey import Survey

CLOSE = 0.985
"""An error that is at least this share of the one asked for is close enough to it."""
ATTEMPTS = 8


def smallest_for(error: float, survey: Survey, error_of: Callable[[Choices], float]) -> Choices:
    """The cheapest choices found whose error is at most a given one.

    What choices lead to is known only when all is coded, but is near what singular values foretell. So a foretold error
    is aimed at, what came of it is measured, and the aim moved in proportion.

    Parameters
    ----------
    error : float
        Relative Frobenius error.
    survey : Survey
    error_of : callable
        Codes all tensors and measures.
    """
    found = at_price(survey.options, CHEAPEST)
    low, high, aim = 0.0, 1.0, error
    for _ in range(ATTEMPTS):
        trial = _foretold(survey, aim)
        got = error_of(trial)
        if got <= error:
            low = aim
            if total_cost(trial) <= total_cost(found):
                found = trial
            if got >= CLOSE * error:
                break
        else:
            high = aim
        aim = aim * error / got if got else 2 * aim
        if not low < aim < high:
            aim = (low + high) / 2
    return found


def _foretold(survey: Survey, error: float) -> Choices:
    """The cheapest choices that are foretold an error of at most so much."""
    return at_last_price(survey.options, CHEAPEST, DEAREST, lambda trial: _expected(survey, trial) <= error)


def _expected(survey: Survey, choices: Choices) -> float:
    whole = survey.energy()
    left = whole - sum(choice.removed_energy for key, choice in choices.items() if survey.options[key].energy)
    return (max(0.0, left) / whole) ** 0.5 if whole else 0.0
