"""Quantiles of the beta distribution and of Student's t, for confidence limits."""

import math

_STEPS = 10_000
"""Most terms of the continued fraction; it needs some hundred where it is used."""


def beta_probability(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b): the probability of a beta variable up to `x`.

    Parameters
    ----------
    x : float
        From 0 to 1.
    a, b : float
        Parameters of the distribution, above 0.

    Notes
    -----
    The continued fraction of DLMF 8.17.22, evaluated by the modified Lentz algorithm; it converges fast for x below the
    mean, and I_x(a, b) = 1 - I_(1-x)(b, a) elsewhere.

    Examples
    --------
    >>> round(beta_probability(0.5, 2, 3), 6)
    0.6875
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_probability(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """Return 1 + d1 / (1 + d2 / (1 + ...)) with the coefficients of DLMF 8.17.23."""
    tiny = 1e-300
    value = c = 1.0
    d = 0.0
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + coefficient * d or tiny)
        c = 1 + coefficient / c or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the x at which `beta_probability` is `probability`, by bisection.

    Parameters
    ----------
    probability : float
        Between 0 and 1.
    a, b : float
        Parameters of the distribution, above 0.

    Examples
    --------
    >>> round(beta_quantile(0.6875, 2, 3), 6)
    0.5
    """
    low, high = 0.0, 1.0
    # 60 halvings reach the last bit of numbers near 1; smaller ones need the rest.
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_probability(middle, a, b) < probability else (low, middle)
    return high


def student_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution.

    Parameters
    ----------
    probability : float
        At least 1/2, below 1.
    freedom : int
        Degrees of freedom, at least 1.

    Examples
    --------
    >>> round(student_quantile(0.95, 31), 4), round(student_quantile(0.975, 1), 3)
    (1.6955, 12.706)
    """
    # freedom / (freedom + t^2) has a beta distribution of freedom / 2 and 1 / 2 (DLMF 8.17, Abramowitz & Stegun 26.7).
    x = beta_quantile(2 * (1 - probability), freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)
