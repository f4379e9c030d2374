"""The four-group quantizer of DTS: split by sign and by the median of each sign, with one level per group.

Source: "Decomposition, Thresholding, Scaling", arXiv 2512.01461, equations 5 to 7, as in its authors' code: a group's
level is its root mean square, so that quantization does not change the norm. Codes take two bits, as four groups need.
The inverse is `dtscodec.quantize.scalar.dequantize`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def four_groups(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row of a matrix with four levels of its own; the inverse is `dequantize`.

    Parameters
    ----------
    values : float32 [g, n]
        g sets of n elements each. A set is a whole factor matrix (as in the authors' code) or one singular vector (as
        in the paper's text).

    Returns
    -------
    codes : uint8 [g, n]
        0 and 1 for the large and small negative elements, 2 and 3 for the small and large positive ones.
    levels : float32 [g, 4]
        Ascending. If a sign does not occur, both of its levels are 0. An empty group has the level of the other group
        of its sign. There is no level for zero: an element of exactly 0 gets the nearest level.

    Examples
    --------
    >>> codes, levels = four_groups(torch.tensor([[3.0, 2.0, 1.0, -1.0]]))
    >>> codes.tolist(), [round(level, 4) for level in levels[0].tolist()]
    ([[3, 2, 2, 1]], [-1.0, -1.0, 1.5811, 3.0])
    """
    sets = values.numpy()
    codes = np.empty(sets.shape, np.uint8)
    levels = [_code_set(row, out) for row, out in zip(sets, codes, strict=True)]
    return torch.from_numpy(codes), torch.from_numpy(np.array(levels, np.float32).reshape(-1, 4))


def _code_set(values: NDArray[np.float32], codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Write the codes of one set into `codes` and return its levels, with little more memory than the set takes."""
    levels = np.zeros(4, np.float32)
    for sign, low, high in ((-1, 1, 0), (1, 2, 3)):
        # Split by sign, then at the median of magnitudes.
        members = values > 0 if sign > 0 else values < 0
        magnitudes = np.abs(values[members])
        large = _larger_half(magnitudes)
        codes[members] = np.where(large, np.uint8(high), np.uint8(low))
        # The level of a group is its root mean square.
        levels[low] = sign * _rms(magnitudes[~large])
        levels[high] = sign * _rms(magnitudes[large]) if large.any() else levels[low]
    # Zeros have no sign: they get the level nearest to 0.
    codes[values == 0] = 2 if levels[2] <= -levels[1] else 1
    return levels


def _larger_half(magnitudes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return a mask of the larger half of the elements, rounded down; of equal elements at the cut, the first ones."""
    half = len(magnitudes) // 2
    if not half:
        return np.zeros(len(magnitudes), np.bool_)
    # Selection, not sorting: linear time.
    cut = np.partition(magnitudes, len(magnitudes) - half)[len(magnitudes) - half]
    large: NDArray[np.bool_] = magnitudes > cut
    at_cut = np.flatnonzero(magnitudes == cut)
    large[at_cut[: half - np.count_nonzero(large)]] = True
    return large


def _rms(values: NDArray[np.float32]) -> float:
    """Return the root mean square, summed in float64; 0 for an empty array."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) if len(values) else 0.0
