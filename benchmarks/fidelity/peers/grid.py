"""Rounding to evenly spaced values between the least and the largest of each group of elements."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

GROUP = 128
"""Elements along a vector that share a scale and a zero."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that elements can take: ``scale * (code - zero)`` for codes from 0 to ``top``.

    Parameters
    ----------
    scale, zero, top
        Of each element, in the shape of what is rounded; float32.
    nbits
        Bits of all codes, scales and zeros.
    """

    scale: Tensor
    zero: Tensor
    top: Tensor
    nbits: int

    def round(self, values: Tensor) -> Tensor:
        """Return the nearest values of the grid."""
        codes = ((values / self.scale).round() + self.zero).clamp_(min=0).minimum(self.top)
        return self.scale * (codes - self.zero)

    @classmethod
    def stacked(cls, grids: Sequence["Grid"]) -> "Grid":
        """Return the grid of the rows of some matrices, one below the other."""
        scale, zero, top = (torch.cat([getattr(grid, part) for grid in grids]) for part in ("scale", "zero", "top"))
        return cls(scale, zero, top, sum(grid.nbits for grid in grids))

    def transposed(self) -> "Grid":
        """Return the grid of the transposed values."""
        return Grid(self.scale.T, self.zero.T, self.top.T, self.nbits)

    def columns(self, chosen: Tensor | int) -> "Grid":
        """Return the grid of some columns."""
        return Grid(self.scale[:, chosen], self.zero[:, chosen], self.top[:, chosen], self.nbits)


def grid_of(vectors: Tensor, bits: int) -> Grid:
    """Return the grid of vectors [k, length]: asymmetric between the least and the largest of each group."""
    count, length = vectors.shape
    # Zeros that fill the last group change no range, since every range has zero in it.
    groups = pad(vectors, (0, -length % GROUP)).reshape(count, -1, GROUP)
    least, largest = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = ((largest - least) / (2**bits - 1)).half().float()
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (-least / scale).round()
    nbits = vectors.numel() * bits + scale.numel() * (16 + bits)
    scale, zero = (part.repeat_interleave(GROUP, 1)[:, :length] for part in (scale, zero))
    return Grid(scale, zero, torch.full_like(vectors, 2**bits - 1), nbits)


def round_to_nearest(vectors: Tensor, bits: int) -> tuple[Tensor, int]:
    """Vectors [k, length] on the grid of their groups, and the bits they take with scales and zeros."""
    grid = grid_of(vectors, bits)
    return grid.round(vectors), grid.nbits
