"""The exact k-th smallest magnitude of a stream of numbers of any length, in two passes.

Magnitudes of float32 have the order of their bits, read as integers. The first pass counts the upper 16 of these 31
bits and finds the bin that holds the k-th number; the second one counts the lower 15 bits of the numbers in that bin.
"""

import torch
from torch import Tensor

LOW_BITS = 15
HIGH, LOW = 1 << 16, 1 << LOW_BITS
"""Bins of the two passes."""
AT_ONCE = 2**20
"""Numbers counted at a time; many more than bins, so that clearing these costs little."""


class Threshold:
    """Finds the k-th smallest magnitude. `add` takes the stream twice, with `begin_second_pass` in between.

    Parameters
    ----------
    k : int
        Rank of the magnitude: 1 is the smallest.

    Examples
    --------
    >>> found = Threshold(2)
    >>> for part in ([3.0, -1.0], [2.0]):
    ...     found.add(torch.tensor(part))
    >>> found.begin_second_pass()
    >>> for part in ([3.0, -1.0], [2.0]):
    ...     found.add(torch.tensor(part))
    >>> found.value()
    2.0
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        self._left = k
        self._bin: int | None = None
        self._counts = torch.zeros(HIGH, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Count numbers: float32, finite, of any shape."""
        flat = values.reshape(-1)
        for begin in range(0, len(flat), AT_ONCE):
            # Bits without the sign, as an integer of the same order.
            bits = flat[begin : begin + AT_ONCE].abs().view(torch.int32)
            if self._bin is None:  # First pass: upper 16 bits.
                self._counts += torch.bincount(bits >> LOW_BITS, minlength=HIGH)
            else:  # Second pass: lower 15 bits of the numbers in the bin.
                inside = bits[bits >> LOW_BITS == self._bin]
                self._counts += torch.bincount(inside & (LOW - 1), minlength=LOW)

    def begin_second_pass(self) -> None:
        """End the first pass over the stream and choose the bin that the second one counts."""
        self._bin = self._find()
        self._counts = torch.zeros(LOW, dtype=torch.int64)

    def value(self) -> float:
        """Return the magnitude, after the second pass."""
        if self._bin is None:
            raise ValueError("expected two passes, got one")
        # Upper bits from the first pass, lower bits from the second.
        bits = (self._bin << LOW_BITS) + self._find()
        return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))

    def _find(self) -> int:
        """Return the bin that holds the k-th number, and subtract what lies before it from k."""
        ends = self._counts.cumsum(0)
        if self._left > int(ends[-1]):
            raise ValueError(f"expected at least {self._left} numbers, got {int(ends[-1])}")
        found = int(torch.searchsorted(ends, self._left))
        self._left -= int(ends[found] - self._counts[found])
        return found
