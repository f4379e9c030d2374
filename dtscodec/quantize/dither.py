"""Dithered rounding to bfloat16: at a pseudo-random threshold for each element, not half way (spec section 6.6).

Nearest rounding undoes what is smaller than half a unit in the last place: added to weights that bfloat16 holds, a
small delta vanishes wherever it is. With thresholds that are spread evenly over the unit (a dither, as in L. Schuchman,
"Dither Signals and Their Effect on Quantization Noise", 1964, and in stochastic rounding), the weights change by the
delta on average, and what rounding adds is noise. A weight that bfloat16 holds stays as it is.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PERIOD = 64
"""Rows after which thresholds repeat."""


@lru_cache(maxsize=8)
def thresholds(columns: int) -> NDArray[np.int32]:
    """Return what is added to the bits of a float32 before its lower half is dropped.

    Parameters
    ----------
    columns : int
        Columns of the block.

    Returns
    -------
    int32 [PERIOD, columns]
        From 0 to 65,535; read-only.

    Examples
    --------
    >>> thresholds(3)[:2].tolist()
    [[0, 26761, 53523], [27986, 11332, 65115]]
    """
    place = np.arange(PERIOD, dtype=np.uint32)[:, None] * np.uint32(0x9E3779B1) + np.arange(columns, dtype=np.uint32)
    # An integer hash: a bijection of 32 bits in which each bit of the input flips about half of the output's.
    place = (place ^ place >> 16) * np.uint32(0x7FEB352D)
    place = (place ^ place >> 15) * np.uint32(0x846CA68B)
    found: NDArray[np.int32] = ((place ^ place >> 16) >> 16).astype(np.int32)
    found.flags.writeable = False
    return found


def round_dithered(
    values: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], width: int
) -> NDArray[np.float32]:
    """Return numbers rounded to bfloat16 by the thresholds of their places, as float32.

    Parameters
    ----------
    values : float32 [m, n]
        The numbers.
    rows, columns : int [m], int [n]
        Their rows and columns in the block.
    width : int
        Columns of the block.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.int32) + thresholds(width)[np.ix_(rows % PERIOD, columns)]
    rounded: NDArray[np.float32] = (bits & -65536).view(np.float32)
    # The bits of a NaN may overflow.
    return np.where(np.isnan(values), np.float32(np.nan), rounded)
