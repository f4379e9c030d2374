"""The Lloyd-Max quantizer: levels of least squared error (S. Lloyd, 1957 and 1982; J. Max, 1960).

At an optimum, thresholds lie half way between levels, and each level is the mean of its cell. DTS, in contrast, splits
at the median of each sign and takes root mean squares.
"""

import torch
from torch import Tensor

MAX_ITERATIONS = 60
"""Most steps of Lloyd's iteration."""
CONVERGED = 1e-6
"""Change of levels, relative to the spread of the values, at which the iteration stops."""
ONE_SIDED = 0.5
"""Ratio of mean to root mean square above which values lie mostly on one side of zero."""


def fit_levels(values: Tensor, count: int = 4) -> Tensor:
    """Return the levels of least squared error for values; `nearest` then gives codes.

    Parameters
    ----------
    values : float32 [n]
        Finite; at least one.
    count : int
        Number of levels.

    Returns
    -------
    float32 [count]
        Ascending.

    Examples
    --------
    >>> fit_levels(torch.tensor([-2.0, -1.0, 1.0, 1.0, 2.0, 3.0])).tolist()
    [-2.0, -1.0, 1.0, 2.5]
    """
    ordered = values.flatten().double().sort().values
    size = ordered.square().mean().sqrt()
    # Start around zero, as deltas are centred there.
    fitted = _descend(ordered, ordered.new_zeros(()), size, count)
    mean = ordered.mean()
    if mean.abs() <= ONE_SIDED * size:
        return fitted.float()
    # Levels that start on the side without values would stay there, so start around the mean, too; the better one wins.
    around = _descend(ordered, mean, (ordered - mean).square().mean().sqrt(), count)
    return min(fitted, around, key=lambda levels: _square_error(ordered, levels)).float()


def _descend(ordered: Tensor, centre: Tensor, spread: Tensor, count: int) -> Tensor:
    """Run Lloyd's iteration on ascending values, from quantiles of a normal variable, to a fixed point."""
    # Prefix sums: the sum of a cell is a difference of two of them.
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    levels = centre + torch.special.ndtri(quantiles) * 1.2 * spread
    for _ in range(MAX_ITERATIONS):
        # Cells: thresholds half way between levels.
        cuts = torch.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2, right=True)
        ends = torch.cat([cuts.new_zeros(1), cuts, cuts.new_tensor([len(ordered)])])
        counts = ends.diff()
        # Levels: means of their cells. The level of an empty cell does not change.
        means = sums[ends].diff() / counts.clamp(min=1)
        fitted = torch.where(counts > 0, means, levels).sort().values
        if (fitted - levels).abs().max() <= CONVERGED * spread:
            break
        levels = fitted
    return fitted


def _square_error(values: Tensor, levels: Tensor) -> float:
    return float((values - levels[nearest(values, levels)]).square().sum())


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Return the index of the nearest level for each value; the inverse is ``levels[codes]``.

    Parameters
    ----------
    values : float, of any shape
        The values.
    levels : float [count]
        Ascending.

    Returns
    -------
    int64, of the shape of `values`

    Examples
    --------
    >>> nearest(torch.tensor([-5.0, 0.1, 0.9]), torch.tensor([-1.0, 0.0, 1.0])).tolist()
    [0, 1, 2]
    """
    # Thresholds lie half way between levels.
    return torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
