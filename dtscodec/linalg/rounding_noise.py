"""Rounding noise: the part of a delta that comes from storing the fine-tune's weights in a dtype of few bits.

The difference between a weight and its rounded value is nearly uniform over one unit in the last place (B. Widrow and
I. Kollar, "Quantization Noise", 2008), so its variance is the square of that unit divided by 12. As a random matrix,
this noise has singular values up to an edge. Singular values of a delta below the edge carry no signal of the
fine-tune.
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
"""Factor on the edge of infinite matrices, which noise of finite size exceeds by a few percent."""
ROUNDINGS = 12
"""Roundings of float32 arithmetic in a delta. That of a merged LoRA is a product, summed over its rank, before it is
added to the weights; at rank 16, about 8 were measured. Negligible compared with rounding to half precision."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The variance of the rounding noise in a matrix [m, n], summed over each row and each column.

    Elements whose delta is zero have no noise: rounding has removed their change entirely.

    Parameters
    ----------
    rows : float64 [m]
        Sums over each row.
    columns : float64 [n]
        Sums over each column.
    """

    rows: Tensor
    columns: Tensor

    @property
    def total(self) -> float:
        """The expected squared norm of the noise."""
        return float(self.rows.sum())

    def subset(self, rows: Tensor, columns: Tensor) -> "Noise":
        """Return the noise of a submatrix, as if the noise of each row and column were spread evenly over it.

        Parameters
        ----------
        rows, columns : bool mask [m], [n]
            The rows and columns of the submatrix.
        """
        # The small bound avoids 0 / 0 where there is no noise.
        share_rows = float(self.rows[rows].sum()) / max(self.total, 1e-300)
        share_columns = float(self.columns[columns].sum()) / max(self.total, 1e-300)
        return Noise(self.rows[rows] * share_columns, self.columns[columns] * share_rows)

    @property
    def edge(self) -> float:
        """The largest singular value of the noise, estimated (Bandeira and van Handel, Annals of Probability 2016)."""
        if not len(self.rows) or not len(self.columns):
            return 0.0
        # Largest standard deviation of a row, plus that of a column.
        return MARGIN * float(self.rows.max().sqrt() + self.columns.max().sqrt())


def rounding_noise(stored: Tensor, delta: Tensor) -> Noise:
    """Return the noise of rounding a fine-tune's weights to their dtype, and of float32 arithmetic in its delta.

    Parameters
    ----------
    stored : float16, bfloat16, float32 or float64 [m, n]
        The fine-tune's weights. If a narrower dtype holds all their values, they count as rounded to that dtype.
    delta : float32 [m, n]
        Fine-tune minus base.
    """
    stored = stored.to(_rounded_to(stored))
    rows = torch.empty(len(stored), dtype=torch.float64)
    columns = torch.zeros(stored.shape[1], dtype=torch.float64)
    for part in cache_sized(*stored.shape):
        # Squared units: one rounding of the weights to their dtype, several of the delta in float32.
        rounded = _unit(stored[part]).square() + ROUNDINGS * _unit(delta[part]).square()
        # A uniform error over one unit has a variance of unit^2 / 12.
        variance = torch.where(delta[part] != 0, rounded / 12, 0)
        rows[part] = variance.sum(1)
        columns += variance.sum(0)
    return Noise(rows, columns)


def _rounded_to(stored: Tensor) -> torch.dtype:
    """Return the narrowest dtype that holds all values exactly."""
    narrower = (torch.bfloat16, torch.float16) if stored.dtype in (torch.float32, torch.float64) else ()
    flat = stored.reshape(-1)
    parts = [flat[part] for part in cache_sized(len(flat))]

    def is_held(dtype: torch.dtype) -> bool:
        # The round trip through the narrower dtype changes nothing.
        return all(torch.equal(part.to(dtype).to(part.dtype), part) for part in parts)

    return next(filter(is_held, narrower), stored.dtype)


def _unit(stored: Tensor) -> Tensor:
    """Return one unit in the last place of each weight: float64."""
    # A float64 without sign and mantissa is the power of two below it; a subnormal one becomes 0.
    power = (stored.double().view(torch.int64) & EXPONENT).view(torch.float64)
    smallest: float = 2.0 ** SMALLEST_EXPONENT[stored.dtype]
    return power.clamp(min=smallest) * 2.0 ** -MANTISSA_BITS[stored.dtype]


def signal_energies(singular: Tensor, noise: Noise) -> Tensor:
    """Return the energies of the signal in a noisy delta: its squared singular values without noise.

    Noise of an even variance w lifts a singular value t of the signal to s^2 = (t^2 + m w) (t^2 + n w) / t^2 (F.
    Benaych-Georges and R. Nadakuditi, Journal of Multivariate Analysis 2012). This solves for t^2.

    Parameters
    ----------
    singular : float64 [k]
        Singular values s of the delta [m, n].
    noise : Noise
        Noise of the delta.

    Returns
    -------
    float64 [k]
        0 for singular values below the noise edge.
    """
    rows, columns = len(noise.rows), len(noise.columns)
    variance = noise.total / max(1, rows * columns)
    # t^2 is the larger root of t^4 - (s^2 - (m + n) w) t^2 + m n w^2 = 0.
    lifted = singular.square() - (rows + columns) * variance
    inside = (lifted.square() - 4 * rows * columns * variance**2).clamp(min=0)
    return torch.where(singular > noise.edge, (lifted + inside.sqrt()) / 2, 0.0).clamp(min=0)
