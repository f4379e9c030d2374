"""All singular values of a matrix where only the leading ones are known: what the others add up to is known too."""

import torch
from torch import Tensor

HALVINGS = 60
STEEPEST = 64.0


def completed(leading: Tensor, square: float, count: int) -> Tensor:
    """Fill up a spectrum by a power law that goes on from the last known value.

    Spectra of deltas fall about as power laws do. The exponent is the one at which the squares add up to what is left
    of the squared norm, so that nothing is counted that is not there.

    Parameters
    ----------
    leading : float64 [k]
        The largest singular values, descending, k >= 1.
    square : float
        Squared Frobenius norm of the matrix.
    count : int
        Singular values in all, at least k.

    Returns
    -------
    float64 [count]
        Descending.

    Examples
    --------
    >>> squares = 1 / torch.arange(1, 5).double()
    >>> completed(squares[:2].sqrt(), float(squares.sum()), 4).square()
    tensor([1.0000, 0.5000, 0.3333, 0.2500], dtype=torch.float64)
    """
    known = len(leading)
    left = max(0.0, square - float(leading.square().sum()))
    last = float(leading[-1])
    if known == count or not left or not last:
        return torch.nn.functional.pad(leading, (0, count - known))
    places = torch.arange(known + 1, count + 1, dtype=torch.float64) / known
    low, high = 0.0, STEEPEST
    for _ in range(HALVINGS):
        power = (low + high) / 2
        if float((last * places**-power).square().sum()) > left:
            low = power
        else:
            high = power
    return torch.cat([leading, last * places**-high])
