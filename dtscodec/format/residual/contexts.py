"""Contexts: how large the distance of an element from its prediction is likely to be (spec section 15.4).

An error of the prediction is about as large as the product of a scale of its row and one of its column. Measured in the
last place of the prediction, it is the larger, the smaller the prediction's exponent. Elements of one context, of any
row and column, have distances of one distribution and are coded together.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.residual.integers import Integers, Octets

CONTEXTS: Final = 128
"""Number of contexts; distances double in two of them."""
MAX_OFFSET: Final = 8191
"""Largest magnitude of an offset: sums with it fit 16 bits."""
_UNIT_CONTEXT: Final = 12
"""Context of a mean distance of 1."""
_MAX_SCALE: Final = 255
_SPAN: Final = 60
"""Binary logarithm of the largest ratio of last places that errors are measured with."""
_SAMPLE: Final = 512
"""Elements of a row or column that its scale is measured on."""
_FEWEST: Final = 16
"""Elements of a row or column that are worth a scale."""


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Scales of rows and columns, as twice their binary logarithm. Rows and columns of scale 0 are predicted exactly.

    Parameters
    ----------
    offset : int
        What is added to every context, -8191 to 8191.
    rows : uint8 [rows], optional
        Scales of the rows; None if all are alike.
    columns : uint8 [columns], optional
        Scales of the columns.
    """

    offset: int
    rows: Octets | None = None
    columns: Octets | None = None

    def __post_init__(self) -> None:
        if abs(self.offset) > MAX_OFFSET:
            raise ValueError(f"expected an offset of at most {MAX_OFFSET}, got {self.offset}")

    def contexts(self, exponents: Integers) -> NDArray[np.uint8]:
        """Return the context of each element: uint8 [rows, columns]."""
        twice = np.int16(2) * exponents
        row_part = np.int16(self.offset) if self.rows is None else self.rows[:, None].astype(np.int16) + self.offset
        context = row_part - twice
        if self.columns is not None:
            context += self.columns.astype(np.int16)
        clipped: Octets = np.clip(context, 0, CONTEXTS - 1, out=context).astype(np.uint8)
        return clipped

    def coded(self) -> tuple[NDArray[np.intp] | slice, NDArray[np.intp] | slice]:
        """Return the rows and columns that are not predicted exactly: indices, or a slice for all."""
        return _coded(self.rows), _coded(self.columns)


def _coded(scales: Octets | None) -> NDArray[np.intp] | slice:
    return slice(None) if scales is None or scales.all() else np.flatnonzero(scales)


def measure_scales(distances: Integers, exponents: Integers) -> Scales:
    """Return the scales of rows and columns of a chunk.

    Parameters
    ----------
    distances : unsigned integers [rows, columns]
        See `to_distances`; at least one is not 0.
    exponents : int16 [rows, columns]
        See `exponents`.
    """
    height, width = distances.shape
    largest = int(exponents.max())
    # A sample of its elements tells the scale of a row well enough. Whether it is 0 all of them tell.
    across, down = max(1, width // _SAMPLE), max(1, height // _SAMPLE)
    by_row = _errors(distances[:, ::across], exponents[:, ::across], largest).mean(axis=1, dtype=np.float64)
    by_column = _errors(distances[::down], exponents[::down], largest).mean(axis=0, dtype=np.float64)
    mean = max(float(by_row.mean()), 2.0**-_SPAN)
    # A scale for each of a few elements would cost more than it saves.
    rows, columns, below = None, None, 0
    if width >= _FEWEST:
        rows, more = _levels(by_row / mean, distances.max(axis=1) > 0)
        below += more
    if height >= _FEWEST:
        columns, more = _levels(by_column / mean, distances.max(axis=0) > 0)
        below += more
    return Scales(_offset(mean, largest, below), rows, columns)


def common_scale(distances: Integers, exponents: Integers) -> Scales:
    """Return one scale for all elements; see `measure_scales`, but distances may all be 0."""
    largest = int(exponents.max())
    return Scales(
        _offset(max(float(_errors(distances, exponents, largest).mean(dtype=np.float64)), 2.0**-_SPAN), largest)
    )


def _errors(distances: Integers, exponents: Integers, largest: int) -> NDArray[np.float32]:
    """Return distances in units of the largest last place. Small ones may count as larger than they are, never as 0."""
    units = np.exp2(np.arange(-_SPAN, 1, dtype=np.float32))
    errors = distances.astype(np.float32)
    errors *= units[np.maximum(exponents - np.int16(largest - _SPAN), 0)]
    return errors


def _offset(mean: float, largest: int, below: int = 0) -> int:
    """Return the offset that makes `_UNIT_CONTEXT` the context of a mean distance of 1 in the last place."""
    offset = _UNIT_CONTEXT + round(2 * (math.log2(mean) + largest)) + below
    return max(-MAX_OFFSET, min(offset, MAX_OFFSET))


def _levels(means: NDArray[np.float64], there: NDArray[np.bool_]) -> tuple[Octets, int]:
    """Return twice the logarithms of means as levels of 1 to 255, 0 where nothing is, and what was subtracted."""
    # Where a sample has nothing, the smallest mean of the others stands.
    known = means > 0
    smallest = means[known].min(initial=1.0)
    logarithms = np.rint(2 * np.log2(np.where(known, means, smallest))).astype(np.int64)
    # If they span more than levels do, the smallest are raised.
    below = max(int(logarithms.min()), int(logarithms.max()) - _MAX_SCALE + 1) - 1
    return np.where(there, np.maximum(logarithms - below, 1), 0).astype(np.uint8), below
