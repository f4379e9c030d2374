"""The smallest size at which a condition on fitted packs holds, with few of them: each takes minutes.

The shortfall of a pack falls about as a power of its size. So sizes are found on a line in logarithms: first by packs
without a fit, which are cheap, then by fitted ones, of which two or three suffice.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dtscodec.errors import SizeError

AIM = 0.97
"""Ratio of the predicted shortfall to the bound at which the search aims."""
CLOSE_ENOUGH = 0.94
"""The search ends at a pack whose ratio is at least this and at most 1."""
NARROW = 1.05
"""The search ends where a pack that fails is smaller than one that holds by at most this factor."""
NEAR = 1.6
"""Packs without a fit lead to a ratio within this factor of the one aimed at."""
FARTHEST = 8.0
"""Largest factor between a size and the next one beyond all others."""
PLAIN_TRIALS, FITTED_TRIALS = 4, 6
"""Most packs without a fit, and most fitted ones."""
SLOPES = -3.0, -0.15
"""Range of slopes that are believed."""

Ratio = Callable[[int], float]
"""Returns the ratio of the predicted shortfall to the bound at a size in bytes; may raise SizeError."""


@dataclass(slots=True)
class Curve:
    """Ratios by size, as straight lines between the points in logarithms.

    Parameters
    ----------
    slope : float
        Slope that is assumed as long as fewer than two points are known.
    points : dict of int to float
        Ratios above 0 by size.
    """

    slope: float
    points: dict[int, float] = field(default_factory=dict)

    def size_at(self, ratio: float) -> float:
        """Return the size at which the curve has a ratio; beyond the points its end slopes go on.

        Parameters
        ----------
        ratio : float
            Above 0.
        """
        ordered = sorted((math.log(size), math.log(max(value, 1e-12))) for size, value in self.points.items())
        wanted = math.log(ratio)
        # The two points on both sides of the ratio, or the two nearest ones: ratios fall as sizes grow.
        place = min(max(1, sum(value > wanted for _, value in ordered)), max(1, len(ordered) - 1))
        near = ordered[place - 1 : place + 1]
        slope = self.slope
        if len(near) == 2 and near[1][0] > near[0][0]:
            slope = (near[1][1] - near[0][1]) / (near[1][0] - near[0][0])
        slope = min(max(slope, SLOPES[0]), SLOPES[1])
        size, value = min(near, key=lambda point: abs(point[1] - wanted))
        step = min(max((wanted - value) / slope, -math.log(FARTHEST)), math.log(FARTHEST))
        return math.exp(size + step)


@dataclass(slots=True)
class SizeSearch:
    """A search for the smallest size of a fitted pack that holds.

    Parameters
    ----------
    start, most : int
        Size of the first pack, and the largest size, in bytes.
    slope : float
        Slope of the logarithm of the ratio by that of the size, before it is known.
    gain : float
        Factor by which a fit lowers the ratio, before it is known.
    least : int
        The smallest size; found by `SizeError`.
    """

    start: int
    most: int
    slope: float
    gain: float
    least: int = 1

    def run(self, plain: Ratio, fitted: Ratio, known: Mapping[int, float]) -> tuple[int, float]:
        """Return the smallest size that was found to hold, or the most that was tried, and its ratio.

        Parameters
        ----------
        plain, fitted : callable
            Ratios of packs before and after the fit.
        known : mapping of int to float
            Ratios of fitted packs from an earlier search.
        """
        curve = Curve(self.slope, dict(known))
        without_fit = Curve(self.slope)
        if not curve.points:
            size = self._evaluate(plain, self.start, without_fit)
            for _ in range(PLAIN_TRIALS - 1):
                if abs(math.log(max(without_fit.points[size], 1e-12) / self.gain)) < math.log(NEAR):
                    break
                aim = self._within(without_fit.size_at(self.gain * AIM))
                if aim in without_fit.points:
                    break
                size = self._evaluate(plain, aim, without_fit)
            self._evaluate(fitted, self._within(without_fit.size_at(self.gain * AIM)), curve)
            if len(without_fit.points) > 1:
                # The slope of fitted packs is nearly that of packs without a fit.
                curve.slope = end_slope(without_fit)
        for _ in range(FITTED_TRIALS - 1):
            if self._is_found(curve.points):
                break
            self._evaluate(fitted, self._next(curve), curve)
        return _best(curve.points)

    def _evaluate(self, ratio_of: Ratio, size: int, curve: Curve) -> int:
        """Evaluate a pack of a size, or of the smallest if that is larger; add it to a curve and return its size."""
        try:
            ratio = ratio_of(size)
        except SizeError as error:
            size = self.least = min(error.smallest, self.most)
            ratio = ratio_of(size)
        curve.points[size] = ratio
        return size

    def _within(self, size: float) -> int:
        return round(min(max(size, self.least), self.most))

    def _is_found(self, points: Mapping[int, float]) -> bool:
        size, ratio = _best(points)
        if ratio > 1:
            return size >= self.most
        failing = max((other for other, value in points.items() if value > 1 and other < size), default=0)
        return ratio >= CLOSE_ENOUGH or size <= max(self.least, NARROW * failing)

    def _next(self, curve: Curve) -> int:
        """Return the size to try next: within the bracket of packs that fail and that hold, if there is one."""
        size = self._within(curve.size_at(AIM))
        best, ratio = _best(curve.points)
        failing = max((other for other, value in curve.points.items() if value > 1 and other < best), default=0)
        if ratio > 1:
            # None holds yet: the largest that was tried is the next one's lower bound.
            return self._within(max(size, NARROW * max(curve.points)))
        # Figures of few samples change in steps: then bisection does better than a line.
        if failing and (len(curve.points) > 3 or not failing < size < best):
            size = round(math.sqrt(failing * best))
        return size if size < best else self._within(best / NARROW)


def end_slope(curve: Curve) -> float:
    """Return the slope between the two largest sizes of a curve, in the range that is believed.

    Parameters
    ----------
    curve : Curve
        At least two points.
    """
    (small, high), (large, low) = sorted(curve.points.items())[-2:]
    slope = math.log(max(low, 1e-12) / max(high, 1e-12)) / math.log(large / small)
    return min(max(slope, SLOPES[0]), SLOPES[1])


def _best(points: Mapping[int, float]) -> tuple[int, float]:
    """Return the smallest size that holds and its ratio; if none does, the largest."""
    holding = [size for size, ratio in points.items() if ratio <= 1]
    size = min(holding) if holding else max(points)
    return size, points[size]
