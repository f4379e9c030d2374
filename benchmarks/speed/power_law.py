"""Growth of figures with the size of a model: the exponent of a power law, and how far ratios spread."""

from collections.abc import Sequence

import numpy as np

FIT_FROM = 4e8
"""Of models below so many parameters, start-up and full decompositions take a good part of the time."""


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The power of the size that the cost goes with: least squares over logarithms.

    >>> round(exponent([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def spread(values: Sequence[float]) -> float:
    """The largest by the smallest.

    >>> spread([2.0, 3.0, 2.5])
    1.5
    """
    return max(values) / min(values)
