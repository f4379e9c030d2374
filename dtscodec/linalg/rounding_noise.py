"""How much of a delta is rounding: a checkpoint in few bits holds the fine-tune's weights only to the nearest value.

The difference between a weight and its rounded value is as good as uniform over one unit in the last place (B. Widrow
and I. Kollar, "Quantization Noise", 2008), so its variance is that unit squared by 12. As a random matrix this noise
has singular values up to an edge; what of a delta lies below is not the fine-tune's doing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.linalg.chunks import cache_sized

MANTISSA_BITS = {torch.float16: 10, torch.bfloat16: 7, torch.float32: 23, torch.float64: 52}
SMALLEST_EXPONENT = {torch.float16: -14, torch.bfloat16: -126, torch.float32: -126, torch.float64: -1022}
EXPONENT = 0x7FF0 << 48
"""Bits of a float64 that hold its exponent."""
MARGIN = 1.05
"""Noise of finite size exceeds the edge of infinite matrices by a few percent."""
ROUNDINGS = 12
"""How often float32 arithmetic rounded a delta: a merged LoRA's is a product, summed over its rank, before it is added
to the weights (about 8 times in those of rank 16 that were measured). Nothing beside the rounding to half precision."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Variance of the rounding noise in a matrix, summed.

    Parameters
    ----------
    rows, columns : float64 [m], [n]
        Over each row and each column. Elements that did not change have none: whatever moved them was rounded away.
    """

    rows: Tensor
    columns: Tensor

    @property
    def total(self) -> float:
        """Expected squared norm of the noise."""
        return float(self.rows.sum())

    def subset(self, rows: Tensor, columns: Tensor) -> "Noise":
        """The noise of some rows and columns, bool masks, as if it were spread evenly over each."""
        share_rows = float(self.rows[rows].sum()) / max(self.total, 1e-300)
        share_columns = float(self.columns[columns].sum()) / max(self.total, 1e-300)
        return Noise(self.rows[rows] * share_columns, self.columns[columns] * share_rows)

    @property
    def edge(self) -> float:
        """About the largest singular value of the noise (A. Bandeira and R. van Handel, Annals of Probability 2016)."""
        if not len(self.rows) or not len(self.columns):
            return 0.0
        return MARGIN * float(self.rows.max().sqrt() + self.columns.max().sqrt())


def rounding_noise(stored: Tensor, delta: Tensor) -> Noise:
    """The noise that rounding to its dtype left in a fine-tune's tensor, and float32 arithmetic in its delta.

    Parameters
    ----------
    stored : float16, bfloat16, float32 or float64 [m, n]
        The fine-tune's weights. Values of half precision in a wider dtype were rounded once, and count as such.
    delta : float32 [m, n]
    """
    stored = stored.to(_rounded_to(stored))
    rows = torch.empty(len(stored), dtype=torch.float64)
    columns = torch.zeros(stored.shape[1], dtype=torch.float64)
    for part in cache_sized(*stored.shape):
        rounded = _unit(stored[part]).square() + ROUNDINGS * _unit(delta[part]).square()
        variance = torch.where(delta[part] != 0, rounded / 12, 0)
        rows[part] = variance.sum(1)
        columns += variance.sum(0)
    return Noise(rows, columns)


def _rounded_to(stored: Tensor) -> torch.dtype:
    """The narrowest dtype that holds all the values."""
    narrower = (torch.bfloat16, torch.float16) if stored.dtype in (torch.float32, torch.float64) else ()
    flat = stored.reshape(-1)
    parts = [flat[part] for part in cache_sized(len(flat))]

    def is_held(dtype: torch.dtype) -> bool:
        return all(torch.equal(part.to(dtype).to(part.dtype), part) for part in parts)

    return next(filter(is_held, narrower), stored.dtype)


def _unit(stored: Tensor) -> Tensor:
    """One unit in the last place of each weight: float64."""
    # What remains of a float64 without sign and mantissa is the power of two below it; 0 of a subnormal one.
    power = (stored.double().view(torch.int64) & EXPONENT).view(torch.float64)
    smallest: float = 2.0 ** SMALLEST_EXPONENT[stored.dtype]
    return power.clamp(min=smallest) * 2.0 ** -MANTISSA_BITS[stored.dtype]


def signal_energies(singular: Tensor, noise: Noise) -> Tensor:
    """Squared singular values of what lies under the noise; 0 for those that the noise alone explains.

    Inverts how noise of an even variance w lifts a singular value t: s^2 = (t^2 + m w) (t^2 + n w) / t^2 (F.
    Benaych-Georges and R. Nadakuditi, Journal of Multivariate Analysis 2012).

    Parameters
    ----------
    singular : float64 [k]
        Singular values of the delta.
    noise : Noise
    """
    rows, columns = len(noise.rows), len(noise.columns)
    variance = noise.total / max(1, rows * columns)
    lifted = singular.square() - (rows + columns) * variance
    inside = (lifted.square() - 4 * rows * columns * variance**2).clamp(min=0)
    return torch.where(singular > noise.edge, (lifted + inside.sqrt()) / 2, 0.0).clamp(min=0)
