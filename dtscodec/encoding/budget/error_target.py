"""The smallest pack for a target error: a search over predicted errors."""

from collections.abc import Callable

from dtscodec.encoding.budget.allocate import (
    LAMBDA_MAX,
    LAMBDA_MIN,
    Choices,
    at_last_multiplier,
    at_multiplier,
    total_cost,
)
from dtscodec.encoding.budget.survey import Survey

CLOSE_ENOUGH = 0.985
"""The search ends at an error that is at least this share of the target."""
TRIALS = 8
"""Most encodings of all tensors that the search takes."""


def smallest_for(error: float, survey: Survey, error_of: Callable[[Choices], float]) -> Choices:
    """Return the cheapest choices found with a relative error of at most a given one.

    The error of some choices is known only after all tensors are encoded, but is close to what singular values predict.
    Choices are made for a predicted error, the actual error is measured, and the prediction is corrected in proportion.

    Parameters
    ----------
    error : float
        Relative Frobenius error.
    survey : Survey
        Candidate encodings of all segments.
    error_of : callable
        Returns the actual error of some choices, by encoding all tensors.
    """
    # The candidates of largest benefit, if no trial reaches the error; then a bracket around the predicted error.
    found = at_multiplier(survey.candidates, LAMBDA_MIN)
    low, high, aim = 0.0, 1.0, error
    for _ in range(TRIALS):
        trial = _choices_for(survey, aim)
        got = error_of(trial)
        if got <= error:
            # Reached: a larger prediction may do, too, in fewer bytes.
            low = aim
            if total_cost(trial) <= total_cost(found):
                found = trial
            if got >= CLOSE_ENOUGH * error:
                break
        else:
            high = aim
        # Correct in proportion; bisect where that leaves the bracket.
        aim = aim * error / got if got else 2 * aim
        if not low < aim < high:
            aim = (low + high) / 2
    return found


def _choices_for(survey: Survey, error: float) -> Choices:
    """Return the cheapest choices with a predicted error of at most `error`."""
    return at_last_multiplier(
        survey.candidates, LAMBDA_MIN, LAMBDA_MAX, lambda trial: _predicted_error(survey, trial) <= error
    )


def _predicted_error(survey: Survey, choices: Choices) -> float:
    """Return the relative error that the candidates' removed energies predict, before any tensor is encoded."""
    whole = survey.energy()
    # New rows are no part of the delta: their energy is 0, and what they remove does not count.
    left = whole - sum(choice.removed_energy for key, choice in choices.items() if survey.candidates[key].energy)
    return (max(0.0, left) / whole) ** 0.5 if whole else 0.0
