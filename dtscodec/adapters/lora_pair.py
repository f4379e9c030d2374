"""LoRA matrices A and B, as PEFT stores them for each kind of layer <-> the factors of a weight's delta.

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
from dtscodec.linalg.svd import factored_triplets

LayerKind = Literal["linear", "transposed", "convolution", "embedding"]
"""Kinds of layers in the table of this module; "transposed" are linear ones of GPT-2."""


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The LoRA matrices A and B of one module.

    Parameters
    ----------
    a, b : Tensor
        Floating-point tensors, with shapes as in the table of this module.
    is_embedding : bool
        Whether PEFT stores them as ``lora_embedding_A`` and ``lora_embedding_B``.

    Raises
    ------
    ValueError
        The shapes do not match each other, or an element is not finite.
    """

    a: Tensor
    b: Tensor
    is_embedding: bool = False

    def __post_init__(self) -> None:
        a, b = self.a.shape, self.b.shape
        # B is [out, r]; for convolutions, whose A has 3 to 5 dimensions, with a kernel of size 1.
        flat = self.is_embedding or len(a) == 2
        ones = () if flat else (1,) * (len(a) - 2)
        if not (len(a) == len(b) == 2 or (not flat and 3 <= len(a) == len(b) <= 5)) or b[1:] != (a[0], *ones):
            raise ValueError(f"expected A [r, ...] and B [out, r], got {[*a]} and {[*b]}")
        if not (self.a.isfinite().all() and self.b.isfinite().all()):
            raise ValueError("expected finite elements, got NaN or infinity")

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.a.shape[0]

    def weight_shape(self, transposed: bool) -> tuple[int, ...]:
        """Return the shape of the weight that the pair changes.

        Parameters
        ----------
        transposed : bool
            Whether a linear layer holds its weight as [in, out]; other layers ignore it.
        """
        shape = (self.b.shape[0], *self.a.shape[1:])
        return shape[::-1] if self.is_embedding or (transposed and len(shape) == 2) else shape

    def to_delta(self, scale: float, transposed: bool) -> Factored:
        """Return the weight's delta as a matrix; the inverse of `from_delta` for a scale of 1.

        Parameters
        ----------
        scale : float
            Factor on B A (`LoraSettings.scale_of`).
        transposed : bool
            As for `weight_shape`.

        Returns
        -------
        Factored
            float64, not multiplied out. A convolution's weight is flattened to [out, in * kernel].
        """
        # B [out, r] times A [r, in * kernel], in float64.
        product = Factored(scale * self.b.double().flatten(1), self.a.double().flatten(1))
        return product.T if self.is_embedding or (transposed and self.a.ndim == 2) else product

    @classmethod
    def from_delta(
        cls, delta: Factored, kind: LayerKind, shape: tuple[int, ...], rank: int | None = None
    ) -> "LoraPair":
        """Factor a weight's delta into A and B of its rank; the inverse of `to_delta` where `rank` suffices.

        A delta of larger rank is truncated to its strongest components (Eckart-Young).

        Parameters
        ----------
        delta : Factored
            The delta as a matrix.
        kind : {"linear", "transposed", "convolution", "embedding"}
            Kind of the layer.
        shape : tuple of int
            Shape of the weight.
        rank : int, optional
            Largest rank of the pair.

        Returns
        -------
        LoraPair
            float64. A and B each get the square root of the singular values, so that both stay in the range of half
            precision.
        """
        # SVD of the product B A, from its factors.
        found = factored_triplets(delta.T if kind in ("embedding", "transposed") else delta)
        u, s, v = found.u, found.s, found.v
        # Truncate to the strongest components; a pair has at least one.
        k = len(s) if rank is None else min(rank, len(s))
        root = s[:k].sqrt()
        # Balance: A and B share each singular value evenly.
        a, b = root[:, None] * v[:k], u[:, :k] * root
        pair = cls(a, b, kind == "embedding").padded(max(1, k))
        if kind != "convolution":
            return pair
        # B is a 1 x 1 convolution on the output of A.
        ones = [1] * (len(shape) - 2)
        return cls(pair.a.view(-1, *shape[1:]), pair.b.view(*pair.b.shape, *ones))

    def padded(self, rank: int) -> "LoraPair":
        """Return a pair of a larger rank with the same product: its additional components are zero.

        Parameters
        ----------
        rank : int
            The rank, at least that of the pair.
        """
        more = rank - self.rank
        a, b = self.a.new_zeros(more, *self.a.shape[1:]), self.b.new_zeros(len(self.b), more, *self.b.shape[2:])
        return LoraPair(torch.cat([self.a, a]), torch.cat([self.b, b], 1), self.is_embedding)


def is_transposed(pair: LoraPair, shape: tuple[int, ...], otherwise: bool) -> bool:
    """Return whether a model holds a linear weight as [in, out].

    Parameters
    ----------
    pair : LoraPair
        The pair that changes it.
    shape : tuple of int
        Shape of the weight.
    otherwise : bool
        Result for a square weight, whose shape fits both.
    """
    plain, transposed = pair.weight_shape(False), pair.weight_shape(True)
    return otherwise if plain == transposed else shape == transposed
