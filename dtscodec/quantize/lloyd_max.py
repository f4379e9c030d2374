"""Levels of least squared error: the Lloyd-Max quantizer (S. Lloyd, 1957 and 1982; J. Max, 1960).

DTS splits at the median of each sign and takes root mean squares. Thresholds half way between levels, and levels that
are the means of their cells, have the smallest squared error that as many levels can have.
"""

import torch
from torch import Tensor

MAX_ITERATIONS = 60
CONVERGED = 1e-6
"""Change of levels, relative to the spread of the values, below which iteration stops."""
ONE_SIDED = 0.5
"""Values whose mean is more than this, by the root mean square, lie mostly on one side of zero."""


def fit_levels(values: Tensor, count: int = 4) -> Tensor:
    """Return the levels of least squared error for some values.

    Parameters
    ----------
    values : float32 [n]
        Finite.
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
    fitted = _descend(ordered, ordered.new_zeros(()), size, count)
    mean = ordered.mean()
    if mean.abs() <= ONE_SIDED * size:
        return fitted.float()
    # From around zero, the levels on the side where no values are would stay there.
    around = _descend(ordered, mean, (ordered - mean).square().mean().sqrt(), count)
    return min(fitted, around, key=lambda levels: _square_error(ordered, levels)).float()


def _descend(ordered: Tensor, centre: Tensor, spread: Tensor, count: int) -> Tensor:
    """Lloyd's iteration to a fixed point, from the levels of a normal variable."""
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    levels = centre + torch.special.ndtri(quantiles) * 1.2 * spread
    for _ in range(MAX_ITERATIONS):
        # Cells: thresholds half way between levels.
        cuts = torch.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2, right=True)
        ends = torch.cat([cuts.new_zeros(1), cuts, cuts.new_tensor([len(ordered)])])
        counts = ends.diff()
        # Levels: means of their cells; an empty cell keeps its level.
        means = sums[ends].diff() / counts.clamp(min=1)
        fitted = torch.where(counts > 0, means, levels).sort().values
        if (fitted - levels).abs().max() <= CONVERGED * spread:
            break
        levels = fitted
    return fitted


def _square_error(values: Tensor, levels: Tensor) -> float:
    return float((values - levels[nearest(values, levels)]).square().sum())


def nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Return for each value the index of its nearest level: int64, of the same shape. The inverse is ``levels[codes]``.

    >>> nearest(torch.tensor([-5.0, 0.1, 0.9]), torch.tensor([-1.0, 0.0, 1.0])).tolist()
    [0, 1, 2]
    """
    return torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
