"""Gradient of a weight -> gradient of the numbers that it is decoded from: levels and scales (spec section 6).

By the chain rule through ``delta = left.T @ right``, whose factors are levels looked up by codes and multiplied by
scales: 4 m n r operations for an m x n matrix of rank r.
"""

import torch
from torch import Tensor

from dtscodec.kernels.packed import Packed, PackedFactors
from dtscodec.kernels.unpack import unpack_delta, unpack_factors


def add_number_gradients(packed: Packed, weight_gradient: Tensor) -> tuple[Tensor, Tensor] | None:
    """Add the gradient of a block's numbers to `grad` of its store's numbers, which must require one.

    Parameters
    ----------
    packed : PackedFactors or PackedValues
        The block.
    weight_gradient : float32 [height, columns]
        Gradient of the rows of the weight that the block stores.

    Returns
    -------
    tuple of float32 [r, m] and [r, n], or None
        The gradients of the factors of a low-rank block, as `unpack_factors` returns them.
    """
    part = weight_gradient[packed.where()]
    # This is called from within a backward pass, where torch records no graph by default.
    with torch.enable_grad():
        if isinstance(packed, PackedFactors):
            left, right = unpack_factors(packed)
            # delta = left.T @ right, so d left = right @ gradient.T and d right = left @ gradient.
            of_factors = right.detach() @ part.T, left.detach() @ part
            _backward((left, of_factors[0]), (right, of_factors[1]))
            return of_factors
        _backward((unpack_delta(packed, torch.float32), part))
        return None


def _backward(*results: tuple[Tensor, Tensor]) -> None:
    """Propagate gradients to numbers; codes of 16 bits are values themselves, and depend on none."""
    for result, gradient in results:
        if result.requires_grad:
            torch.autograd.backward(result, gradient)
