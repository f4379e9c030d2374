"""The matrices of a fine-tune's delta, with the singular triplets that components start from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.encoding.budget.matrix_candidates import ROW_SHARES, TALL
from dtscodec.encoding.fitting.scaled_delta import unit_scaled
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.format.blocks import BaseRows
from dtscodec.linalg.rounding_noise import rounding_noise, signal_energies
from dtscodec.linalg.spectrum import Factors

MOST = 200
"""Components of a matrix at most."""
SMALLEST = 1e-3
"""Least singular value, relative to the largest, that a Gram matrix in float32 gives well."""
SMALLEST_SIDE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The changed rows of a matrix, or the most changed of them.

    Parameters
    ----------
    delta : DenseDelta
        Their elements.
    factors : Factors
        Leading singular triplets, divided by `unit`.
    unit : float
        A power of two.
    energies : float64 [k]
        Squared singular values above rounding noise.
    """

    delta: DenseDelta
    factors: Factors
    unit: float
    energies: NDArray[np.float64]

    @classmethod
    def of(cls, delta: DenseDelta) -> "Rows":
        """Decompose a delta."""
        values, unit = unit_scaled(delta)
        factors = _leading(values)
        singular = factors.spectrum * unit
        squares = singular.square() if delta.noise is None else signal_energies(singular, delta.noise)
        return cls(delta, factors, unit, squares[squares > 0].double().numpy()[: len(factors.s)])

    @property
    def bitmap_bytes(self) -> int:
        """Bytes of the bitmaps of coded rows and columns."""
        return sum(len(mask) // 8 for mask in (self.delta.rows, self.delta.cols) if mask is not None)

    @property
    def noise_edge(self) -> float:
        """See `dtscodec.encoding.fitting.scaled_delta.ScaledDelta`."""
        return self.delta.noise.edge / self.unit if self.delta.noise else 0.0

    @property
    def values(self) -> Tensor:
        """The elements divided by `unit`, as coordinate descent takes them."""
        return unit_scaled(self.delta)[0]

    def leading(self, rank: int) -> Factors:
        """Return the first `rank` triplets, with the whole spectrum."""
        u, s, v = self.factors.u[:, :rank], self.factors.s[:rank], self.factors.v[:rank]
        return Factors(u, s, v, self.factors.spectrum)

    def placed(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the whole matrix whose coded part is `left`^T `right`, zero elsewhere."""
        whole = torch.zeros(self.delta.height, self.delta.columns)
        masks = (self.delta.rows, self.delta.cols)
        rows, cols = (
            torch.arange(size) if mask is None else torch.from_numpy(np.flatnonzero(mask))
            for mask, size in zip(masks, whole.shape, strict=True)
        )
        whole[rows[:, None], cols] = left.T @ right
        return whole


def _leading(values: Tensor) -> Factors:
    """Return the leading singular triplets, by the Gram matrix of the shorter side: faster than an SVD."""
    is_wide = values.shape[0] < values.shape[1]
    tall = values.T if is_wide else values
    squares, right = torch.linalg.eigh(tall.T @ tall)
    spectrum = squares.flip(0).clamp(min=0).sqrt()
    rank = min(MOST, int((spectrum > SMALLEST * spectrum[0]).sum()))
    right = right.flip(1)[:, :rank]
    left = (tall @ right) / spectrum[:rank]
    u, v = (right, left) if is_wide else (left, right)
    return Factors(u.contiguous(), spectrum[:rank].clone(), v.T.contiguous(), spectrum)


def changed_matrices(fine: Mapping[str, Tensor], base: Mapping[str, Tensor], prefix: str) -> dict[str, list[Rows]]:
    """Return the changed matrices of a fine-tune; of tall ones, also with only the most changed rows.

    Parameters
    ----------
    fine, base : mapping of str to Tensor
        All tensors.
    prefix : str
        Prefix of names in the fine-tune that those in the base lack.
    """
    found = {}
    for name, tensor in sorted(fine.items()):
        other = base.get(name.removeprefix(prefix))
        if other is None or tensor.ndim != 2 or min(tensor.shape) < SMALLEST_SIDE or torch.equal(tensor, other):
            continue
        matrix = tensor.float() - other.float()
        delta = DenseDelta.of(matrix, BaseRows(name, 0), rounding_noise(tensor, matrix))
        assert delta is not None
        rows, columns = delta.shape
        shares = ROW_SHARES if rows >= TALL * columns else ROW_SHARES[:1]
        counts = sorted({max(columns, int(rows * share)) for share in shares}, reverse=True)
        found[name] = [Rows.of(delta.largest_rows(count)) for count in counts]
    return found
