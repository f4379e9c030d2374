"""The four-group quantizer of DTS: split by sign and by the median of each sign, one level per group.

Source: "Decomposition, Thresholding, Scaling", arXiv 2512.01461, equations 5 to 7, as its authors' code computes
them: a group's level is its root mean square, so that the norm of what is quantized does not change. Here the
codes take the two bits that four groups need. The inverse is `dtscodec.codec.dequantize.code_values`.
"""

import torch
from torch import Tensor


def four_groups(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row of a matrix with four levels of its own.

    Parameters
    ----------
    values : float32 [g, n]
        g sets of n elements. A set is a whole factor matrix (as in the authors' code) or one singular vector (as
        in the paper's text).

    Returns
    -------
    codes : uint8 [g, n]
        0 and 1 for the large and small negative elements, 2 and 3 for the small and large positive ones.
    levels : float32 [g, 4]
        Ascending. The levels of a sign that does not occur are 0, those of a single empty group equal their
        neighbour's. Four groups have no zero: an element of exactly 0 gets the level nearest to it.

    Examples
    --------
    >>> codes, levels = four_groups(torch.tensor([[3.0, 2.0, 1.0, -1.0]]))
    >>> codes.tolist(), [round(level, 4) for level in levels[0].tolist()]
    ([[3, 2, 2, 1]], [-1.0, -1.0, 1.5811, 3.0])
    """
    positive, negative = values > 0, values < 0
    rank = _descending_rank(values)
    high = positive & (rank < positive.sum(1, keepdim=True) // 2)
    low = negative & (rank >= values.shape[1] - negative.sum(1, keepdim=True) // 2)
    codes = torch.where(positive, 2, 1).to(torch.uint8)
    codes[high], codes[low] = 3, 0
    levels = torch.stack([_rms(values, codes == code, sign) for code, sign in enumerate((-1, -1, 1, 1))], dim=1)
    for code, neighbour in ((0, 1), (3, 2)):
        empty = levels[:, code] == 0
        levels[empty, code] = levels[empty, neighbour]
    levels = levels.to(torch.float32)
    nearest = torch.where(levels[:, 2] <= -levels[:, 1], 2, 1).to(torch.uint8)
    codes = torch.where(values == 0, nearest[:, None], codes)
    return codes, levels


def _descending_rank(values: Tensor) -> Tensor:
    """Place of each element in its row, largest first, equal ones in order: int64 [g, n]."""
    order = values.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _rms(values: Tensor, group: Tensor, sign: int) -> Tensor:
    """Signed root mean square of a group in each row, 0 where it is empty: float64 [g]. Zeros do not count."""
    counted = group & (values != 0)
    squares = torch.where(counted, values, 0).to(torch.float64).square().sum(1)
    return sign * (squares / counted.sum(1).clamp(min=1)).sqrt()
