"""Scales of blocks of a matrix: which element belongs to which scale (spec section 7.1)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtscodec.format.dtypes import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScaleGrid:
    """Blocks of a matrix, or of each matrix of a stack, that share a scale.

    Parameters
    ----------
    shape : tuple of int
        Leading dimensions of the scales, then their rows and columns.
    height, width : int
        Rows and columns of a block; the last blocks may be smaller.
    """

    shape: tuple[int, ...]
    height: int
    width: int

    @classmethod
    def of(cls, weight: TensorSpec, scale: TensorSpec, block: tuple[int, int] | None) -> "ScaleGrid | None":
        """Return the blocks of a weight; None if the shapes do not determine them.

        Parameters
        ----------
        weight, scale : TensorSpec
            Specs of the codes, in elements, and of their scales.
        block : (int, int) or None
            Rows and columns of a block, if the configuration has them.
        """
        if not weight.shape or not weight.elements:
            return None
        *stack, rows, columns = (1, *weight.shape) if len(weight.shape) == 1 else weight.shape
        if scale.elements == 1:
            return cls((1, 1), math.prod(stack) * rows, columns)
        if len(scale.shape) == 1 and not stack:
            shape: tuple[int, ...] = (*scale.shape, 1)
        else:
            shape = scale.shape
        if len(shape) != len(stack) + 2 or list(shape[:-2]) != stack:
            return None
        down, across = shape[-2:]
        # The block of the configuration if it explains the number of scales, else blocks of equal size.
        if block is not None and (math.ceil(rows / block[0]), math.ceil(columns / block[1])) == (down, across):
            return cls(shape, *block)
        if not down or not across or rows % down or columns % across:
            return None
        return cls(shape, rows // down, columns // across)

    def spread(self, scales: "Tensor", rows: slice, columns: int) -> "Tensor":
        """Return the scale of each element in some rows of one matrix: [rows, columns].

        Parameters
        ----------
        scales : tensor
            The scales of the matrix: [shape[-2], shape[-1]].
        rows : slice
            The rows.
        columns : int
            Number of columns of the matrix.
        """
        import torch

        down = torch.arange(rows.start, rows.stop, device="cpu") // self.height
        wide = scales[down]
        # One scale for a whole row is broadcast.
        return wide if wide.shape[1] == 1 else wide.repeat_interleave(self.width, dim=1)[:, :columns]
