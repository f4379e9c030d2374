"""A delta divided by a power of two, with the singular triplets that coordinate descent starts from."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.segments.encoded_block import ChangedDelta
from dtscodec.encoding.segments.factored_delta import FactoredDelta
from dtscodec.errors import assert_never
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors, leading_factors
from dtscodec.linalg.svd import canonical_signs

UNSCALED_EXPONENTS = 30
"""Magnitude of exponents of two up to which values are not scaled."""


@dataclass(frozen=True, slots=True)
class ScaledDelta:
    """A delta in the form that coordinate descent starts from.

    Parameters
    ----------
    values : float32 [m, n] or Factored
        The delta divided by `unit`, on the device that multiplies it.
    factors : Factors
        Its leading singular triplets.
    unit : float
        A power of two: squares of extreme values are beyond float32.
    noise_edge : float
        Largest singular value that rounding noise alone explains, divided by `unit`.
    """

    values: Tensor | Factored
    factors: Factors
    unit: float
    noise_edge: float

    @property
    def is_factored(self) -> bool:
        """True if the delta is known by its factors in float64."""
        return isinstance(self.values, Factored)

    @classmethod
    def of(cls, delta: ChangedDelta, rank: int, device: str) -> "ScaledDelta":
        """Scale a delta and compute its leading singular triplets.

        Parameters
        ----------
        delta : DenseDelta or FactoredDelta
            Its coded rows and columns.
        rank : int
            Number of triplets.
        device : str
            Device for products of large matrices. Factored deltas stay on the CPU.

        Raises
        ------
        SvdError
            LAPACK did not converge.
        """
        match delta:
            case DenseDelta():
                values, unit = unit_scaled(delta)
                noise_edge = delta.noise.edge / unit if delta.noise else 0.0
                return cls(values.to(device), leading_factors(values, rank, device), unit, noise_edge)
            case FactoredDelta():
                # Its triplets are known in float64; the rest of the spectrum is 0.
                unit = 2.0 ** math.frexp(float(delta.s[0]))[1]
                scaled = Factored((delta.u * (delta.s / unit)).float(), delta.v.float())
                return cls(scaled, _factors(delta, rank, unit), unit, 0.0)
            case _:
                assert_never(delta)


def unit_scaled(delta: DenseDelta) -> tuple[Tensor, float]:
    """Return the values of a delta, divided by a power of two where they are extreme, and that power.

    Parameters
    ----------
    delta : DenseDelta
        The coded rows and columns.
    """
    # A power of two, since dividing by it changes no mantissa.
    exponent = math.frexp(delta.largest_magnitude)[1]
    if abs(exponent) <= UNSCALED_EXPONENTS:
        return delta.values, 1.0
    unit = 2.0 ** max(exponent, -100)
    return delta.values / unit, unit


def _factors(delta: FactoredDelta, rank: int, unit: float) -> Factors:
    u, s, v = canonical_signs(delta.u[:, :rank], delta.s[:rank] / unit, delta.v[:rank])
    # Singular values beyond the rank are 0.
    spectrum = torch.nn.functional.pad(delta.s / unit, (0, min(delta.shape) - len(delta.s)))
    return Factors(u.float(), s.float(), v.float(), spectrum.float())
