"""Factors on components that restore the effect of a delta, direction by direction.

Least squares shrinks: a model's outputs change in the right direction, but too little. Along each singular direction
u_k v_k^T of a delta D, the decoded delta has the share ``u_k^T decoded v_k / s_k`` of D, its overlap. The strongest
directions have nearly all of it, weak ones little more than a half, so one factor for all components would overshoot
where it matters most.
"""

import torch
from torch import Tensor

from dtscodec.linalg.spectrum import Factors

MISSING_POWER = 3
"""Power of singular values that weights directions without components: gradients resemble the strong ones."""
LARGEST_MISSING = 1.3
"""Largest factor for directions without components."""
BULK = 2.858
"""Multiple of the median singular value up to which singular values belong to the bulk of a matrix of noise (M. Gavish
and D. Donoho, IEEE Transactions on Information Theory 2014, for square matrices)."""
LEAST_OVERLAP = 0.3
"""Overlaps below this one say nothing of a direction."""


def direction_gains(factors: Factors, overlaps: Tensor, uniform: float, floor: float, largest: float) -> Tensor:
    """Return the factor of each direction.

    Parameters
    ----------
    factors : Factors
        The leading r singular triplets of the delta, and its spectrum.
    overlaps : float64 [r]
        The decoded delta along each singular direction, divided by the singular value.
    uniform : float
        The factor on the whole decoded delta that restores its effect.
    floor : float
        Singular values up to this one are rounding noise.
    largest : float
        Largest factor for the overlap of a direction.

    Returns
    -------
    float64 [r]
        At least 1.
    """
    spectrum, kept = factors.spectrum.double(), len(factors.s)
    coded, rest = spectrum[:kept], spectrum[kept:]
    rest = rest[rest > floor]
    # Each direction's own share, and in equal measure for all what directions without components would add.
    missing = _share_beyond(coded, rest, MISSING_POWER + 1)
    gains = (1 / overlaps.clamp(min=LEAST_OVERLAP)).clamp(1.0, largest) * min(missing, LARGEST_MISSING)
    # Directions that stand out of the bulk are signal. Where some have no components, all others stand in for them.
    signal = rest[rest > BULK * spectrum.median()]
    gains = gains.clamp(min=min(uniform, _share_beyond(coded, signal, 2)))
    # Beyond the rank of a delta there is nothing to restore: such components refine the directions before them.
    return torch.where(coded > floor, gains, 1.0)


def _share_beyond(coded: Tensor, rest: Tensor, power: int) -> float:
    """Return the sum of powers of all singular values, relative to that of the coded ones; at least 1."""
    # Relative to the largest: high powers of small numbers leave the range of float64.
    whole = (rest / coded[0]).pow(power).sum() / (coded / coded[0]).pow(power).sum()
    return 1.0 + float(whole)
