"""Gradient of a weight -> gradient of the numbers that it is decoded from: levels and scales (spec section 6).

By the chain rule through ``delta = left.T @ right``, whose factors are looked up in level tables and scaled: 4 m n r
operations for a matrix, as a refit takes.
"""

import torch
from torch import Tensor

from dtscodec.kernels.packed import Packed, PackedFactors, PackedValues
from dtscodec.kernels.unpack import unpack_factors, unpack_values


def add_gradient(packed: Packed, weight: Tensor) -> None:
    """Add what the numbers of a block get to the gradient of its store's numbers, which must require one.

    Parameters
    ----------
    packed : PackedFactors or PackedValues
    weight : float32 [height, columns]
        Gradient of the rows of the weight that the block makes.
    """
    part = weight[packed.places()]
    with torch.enable_grad():  # This is called while gradients flow, when torch records none.
        if isinstance(packed, PackedFactors):
            left, right = unpack_factors(packed)
            _backward((left, right.detach() @ part.T), (right, left.detach() @ part))
        elif isinstance(packed, PackedValues):
            _backward((unpack_values(packed), part))


def _backward(*results: tuple[Tensor, Tensor]) -> None:
    """Send gradients back; codes of 16 bits, which are values themselves, have no numbers that take them."""
    for result, gradient in results:
        if result.requires_grad:
            torch.autograd.backward(result, gradient)
