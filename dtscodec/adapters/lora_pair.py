"""A LoRA's two matrices as PEFT stores them for each kind of layer <-> the factors of a weight's delta.

| layer | A | B | delta of the weight |
|---|---|---|---|
| linear, [out, in] | [r, in] | [out, r] | B A |
| linear of GPT-2, [in, out] | [r, in] | [out, r] | (B A)^T |
| convolution, [out, in, ...] | [r, in, ...] | [out, r, 1, ...] | B A, both flattened |
| embedding, [vocabulary, width] | [r, vocabulary] | [width, r] | (B A)^T |
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dtscodec.linalg.factored_matrix import Factored

Kind = Literal["linear", "transposed", "convolution", "embedding"]


@dataclass(frozen=True, slots=True)
class Pair:
    """The A and B of one module.

    Parameters
    ----------
    a, b : float tensors
        Shapes as in the table above.
    is_embedding : bool
        Whether they are stored under an embedding's names.

    Raises
    ------
    ValueError
        Shapes that are not those of a pair, or an element that is not finite.
    """

    a: Tensor
    b: Tensor
    is_embedding: bool = False

    def __post_init__(self) -> None:
        a, b = self.a.shape, self.b.shape
        flat = self.is_embedding or len(a) == 2
        ones = () if flat else (1,) * (len(a) - 2)
        if not (len(a) == len(b) == 2 or (not flat and 3 <= len(a) == len(b) <= 5)) or b[1:] != (a[0], *ones):
            raise ValueError(f"expected A [r, ...] and B [out, r], got {[*a]} and {[*b]}")
        if not (self.a.isfinite().all() and self.b.isfinite().all()):
            raise ValueError("expected finite elements, got NaN or infinity")

    @property
    def rank(self) -> int:
        """Its rank r."""
        return self.a.shape[0]

    def weight_shape(self, transposed: bool) -> tuple[int, ...]:
        """Shape of the weight that it is a delta of."""
        shape = (self.b.shape[0], *self.a.shape[1:])
        return shape[::-1] if self.is_embedding or (transposed and len(shape) == 2) else shape

    def factored(self, scale: float, transposed: bool) -> Factored:
        """The weight's delta, float64, seen as a matrix; the inverse of `pair_of` for a scale of 1."""
        product = Factored(scale * self.b.double().flatten(1), self.a.double().flatten(1))
        return product.T if self.is_embedding or (transposed and self.a.ndim == 2) else product


def pair_of(delta: Factored, kind: Kind, shape: tuple[int, ...], rank: int) -> Pair:
    """The pair of one rank whose product is a weight's delta, or the nearest of that rank; `Pair.factored` inverts it.

    Parameters
    ----------
    delta : Factored
        Seen as a matrix.
    kind : {"linear", "transposed", "convolution", "embedding"}
        Of the layer.
    shape : tuple of int
        Of the weight.
    rank : int
        Of the result, which is filled up with zeros.

    Returns
    -------
    Pair
        float64; components share their strength evenly, so that half precision holds both.
    """
    u, s, v = (delta.T if kind in ("embedding", "transposed") else delta).triplets()
    k = min(rank, len(s))
    root = s[:k].sqrt()
    a, b = torch.zeros(rank, v.shape[1], dtype=torch.float64), torch.zeros(u.shape[0], rank, dtype=torch.float64)
    a[:k], b[:, :k] = root[:, None] * v[:k], u[:, :k] * root
    if kind == "convolution":
        a, b = a.view(rank, *shape[1:]), b.view(*b.shape, *[1] * (len(shape) - 2))
    return Pair(a, b, kind == "embedding")
