"""KL as a function of bytes, interpolated, with its standard error over texts."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np

from benchmarks.language.points import Point

Influences: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
TINY = 1e-12
"""Least KL, as logarithms are taken."""
SLACK = 1.05
"""Factor by which a curve reaches beyond its ends: sizes of one setting differ a little from task to task."""


@dataclass(frozen=True, slots=True)
class LogKl:
    """The logarithm of a mean KL.

    Parameters
    ----------
    value : float
        The logarithm.
    influences : float64 [texts]
        What each text adds to its error, to first order.
    """

    value: float
    influences: Influences

    @classmethod
    def of(cls, point: Point) -> "LogKl":
        """Return that of a point."""
        sums, counts = (np.array(values, dtype=np.float64) for values in (point.text_kl, point.text_tokens))
        kl = max(TINY, float(sums.sum() / counts.sum()))
        return cls(math.log(kl), (sums - kl * counts) / (kl * counts.sum()))

    def combined(self, weight: float, other: "LogKl", other_weight: float) -> "LogKl":
        """Return the weighted sum of two that are judged on the same texts."""
        value = weight * self.value + other_weight * other.value
        return LogKl(value, weight * self.influences + other_weight * other.influences)

    def variance(self) -> float:
        """Return the squared standard error of the logarithm, with texts as units."""
        count = len(self.influences)
        return float((self.influences**2).sum() * count / max(1, count - 1))


def merge_seeds(points: Iterable[Point]) -> list[Point]:
    """Return a point for each setting, with the mean figures of its seeds.

    Parameters
    ----------
    points : iterable of Point
        Points of one method on one task, judged on the same texts.
    """
    by_setting: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        by_setting[point.setting].append(point)
    return [_mean(seeds) for seeds in by_setting.values()]


def _mean(seeds: Sequence[Point]) -> Point:
    return replace(
        seeds[0],
        share=max(point.share for point in seeds),
        kl=float(np.mean([point.kl for point in seeds])),
        agreement=float(np.mean([point.agreement for point in seeds])),
        text_kl=np.mean([point.text_kl for point in seeds], axis=0).tolist(),
    )


class Sample(NamedTuple):
    """A setting on a curve: its share of the checkpoint's bytes, its KL, and its name."""

    share: float
    kl: LogKl
    setting: str


class Curve:
    """The settings of one method on one task that no smaller one beats.

    Parameters
    ----------
    points : iterable of Point
        All settings, judged on the same texts.
    """

    def __init__(self, points: Iterable[Point]) -> None:
        samples = [Sample(point.share, LogKl.of(point), point.setting) for point in points]
        self.front: list[Sample] = []
        for sample in sorted(samples, key=lambda sample: (sample.share, sample.kl.value)):
            if not self.front or sample.kl.value < self.front[-1].kl.value:
                self.front.append(sample)

    def covers(self, share: float) -> bool:
        """Return whether a size is between the smallest and the largest setting."""
        return self.front[0].share / SLACK <= share <= self.front[-1].share * SLACK

    def at(self, share: float) -> LogKl:
        """Return the KL at a size that is covered: its logarithm is linear in that of the bytes between settings."""
        after = next((place for place, sample in enumerate(self.front) if sample.share >= share), len(self.front))
        if after in (0, len(self.front)):
            return self.front[min(after, len(self.front) - 1)].kl
        low, high = self.front[after - 1], self.front[after]
        weight = math.log(share / low.share) / math.log(high.share / low.share)
        return low.kl.combined(1 - weight, high.kl, weight)


class Ratio(NamedTuple):
    """How a method's KL compares with that of `best` at equal bytes.

    Parameters
    ----------
    share : float
        The size.
    ratio : float
        Geometric mean over tasks of the method's KL by that of `best`.
    errors : float
        The ratio's logarithm in standard errors: below -2 the method is better.
    """

    share: float
    ratio: float
    errors: float

    @classmethod
    def of(cls, share: float, theirs: Sequence[LogKl], ours: Sequence[LogKl]) -> "Ratio":
        """Compare two methods by their KL on each task."""
        # Texts of a task are the same for both, so their differences count; tasks are independent.
        differences = [their.combined(1.0, our, -1.0) for their, our in zip(theirs, ours, strict=True)]
        mean = sum(difference.value for difference in differences) / len(differences)
        error = math.sqrt(sum(difference.variance() for difference in differences)) / len(differences)
        return cls(share, math.exp(mean), mean / error if error else math.inf * mean if mean else 0.0)


def ratio_at(share: float, ours: Mapping[str, Curve], theirs: Mapping[str, Curve]) -> Ratio | None:
    """Compare two methods at a size; None if one of them does not reach it on all tasks.

    Parameters
    ----------
    share : float
        The size, as a share of the checkpoint's bytes.
    ours, theirs : mapping of str to Curve
        Curves of both methods by task.
    """
    if not all(task in theirs and ours[task].covers(share) and theirs[task].covers(share) for task in ours):
        return None
    return Ratio.of(share, [theirs[task].at(share) for task in ours], [ours[task].at(share) for task in ours])
