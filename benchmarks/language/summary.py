"""Points of all fine-tunes -> what is reported: figures by size, peers against `best`, and rows of models."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.fidelity.summary import geometric
from benchmarks.language.bench import BEST, CALIBRATED, OURS, unrounded
from benchmarks.language.curves import Curve, LogKl, Ratio, merge_seeds, ratio_at
from benchmarks.language.points import Point
from benchmarks.language.tasks import Task

SHARES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.0175, 0.04, 0.08, 0.1)
"""Sizes that the tables show, as shares of the bfloat16 bytes: within each, a method's best setting counts."""
COMPARED = (0.0005, 0.08)
"""Range of sizes in which no peer is to be better than `best`."""
GRID = tuple(np.geomspace(*COMPARED, num=100).tolist())
"""Sizes at which peers are compared with `best`."""
RIVAL = 4
"""Peers whose KL on the first task is nowhere less than so many times that of `best` are not run on the others."""
UNTOUCHED = ("base", "fine-tune")


class Measured:
    """Points of a run.

    Parameters
    ----------
    points : iterable of Point
        All points.
    tasks : sequence of Task
        The full fine-tunes that means are over.
    """

    def __init__(self, points: Iterable[Point], tasks: Sequence[Task]) -> None:
        self.points, self.tasks = list(points), [task.name for task in tasks]

    def one(self, task: str, method: str, setting: str = "", *, few: bool = False, seed: int = 0) -> Point | None:
        """Return a point of a task, judged on all test tokens unless `few`; None if it was not measured."""
        wanted = (task, seed, method, setting, few)
        return next((p for p in self.points if (p.task, p.task_seed, p.method, p.setting, p.few) == wanted), None)

    def all_tasks(self, method: str, setting: str, *, few: bool = False) -> list[Point]:
        """Return the points of a setting on all tasks, in their order; none if one of them is missing."""
        found = [self.one(task, method, setting, few=few) for task in self.tasks]
        return [point for point in found if point] if all(found) else []

    def swept(self) -> dict[str, dict[str, list[Point]]]:
        """Return the points of the sweeps by method and task. Seeds of one setting become their mean."""
        found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
        for point in self.points:
            if point.few and point.task in self.tasks and not point.task_seed and point.method not in UNTOUCHED:
                found[point.method][point.task].append(point)
        return {
            method: {task: merge_seeds(points) for task, points in tasks.items()} for method, tasks in found.items()
        }

    def curves(self) -> dict[str, dict[str, Curve]]:
        """Return the curves of all methods by task."""
        return {
            method: {task: Curve(points) for task, points in tasks.items()} for method, tasks in self.swept().items()
        }

    def is_calibrated(self, method: str) -> bool:
        """Return whether a method uses calibration texts."""
        return any(point.calibrated for point in self.points if point.method == method)


def by_size(measured: Measured) -> dict[str, list[dict[str, float] | None]]:
    """Return for each method and each of `SHARES` the geometric mean of the KL over tasks, and the mean agreement."""
    table: dict[str, list[dict[str, float] | None]] = {}
    for method, of_task in measured.swept().items():
        table[method] = []
        for share in SHARES:
            best = [_within(of_task.get(task, []), share) for task in measured.tasks]
            table[method].append(_means([point for point in best if point]) if all(best) else None)
    return table


def _within(points: Sequence[Point], share: float) -> Point | None:
    """Of the points of at most a share the one of least KL; None at sizes beyond that of the largest point."""
    smaller = max((other for other in SHARES if other < share), default=0.0)
    if all(point.share <= smaller for point in points):
        return None
    return min((point for point in points if point.share <= share), key=lambda point: point.kl, default=None)


def _means(points: Sequence[Point]) -> dict[str, float]:
    return {
        "kl": geometric(point.kl for point in points),
        "agreement": float(np.mean([point.agreement for point in points])),
    }


def by_task(measured: Measured) -> dict[str, dict[str, list[dict[str, float] | None]]]:
    """Return for `best`, each task and each of `SHARES` the agreement, and the share of the base's KL closed."""
    swept, table = measured.swept(), {}
    for method in (BEST, CALIBRATED):
        table[method] = {task: list(_closed(measured, task, points)) for task, points in swept.get(method, {}).items()}
    return table


def _closed(measured: Measured, task: str, points: Sequence[Point]) -> Iterator[dict[str, float] | None]:
    base = measured.one(task, "base", few=True)
    assert base
    for share in SHARES:
        found = _within(points, share)
        closed = 1 - found.kl / base.kl if found and base.kl else 0.0
        yield {"agreement": found.agreement, "closed": closed} if found else None


def lines(measured: Measured) -> dict[str, list[list[float]]]:
    """Return for each method its line in the picture: share and KL, as the geometric mean over tasks."""
    return {method: list(_line(of_task, measured.tasks)) for method, of_task in measured.curves().items()}


def _line(of_task: Mapping[str, Curve], tasks: Sequence[str]) -> Iterator[list[float]]:
    if any(task not in of_task for task in tasks):
        return
    for share in _knots([of_task]):
        if all(of_task[task].covers(share) for task in tasks):
            yield [share, math.exp(float(np.mean([of_task[task].at(share).value for task in tasks])))]


def _knots(methods: Iterable[Mapping[str, Curve]]) -> list[float]:
    """Return the sizes at which a curve bends; those that differ by less than a hundredth are one."""
    found: list[float] = []
    for share in sorted(sample.share for of_task in methods for curve in of_task.values() for sample in curve.front):
        if not found or share > 1.01 * found[-1]:
            found.append(share)
    return found


def against_peers(measured: Measured) -> dict[str, dict[str, Any]]:
    """Return for each peer its KL by that of `best` at `SHARES`, and where that is lowest in standard errors.

    The mean is over the tasks that the peer was measured on; see `rivals`. Neither is rounded to bfloat16. Who has
    calibration texts may still leave a pack as it was encoded: calibrated peers are compared with the better of both.
    Curves are compared where one of them bends and at `GRID`: between its settings a curve's standard error is smaller.
    """
    swept, curves, table = measured.swept(), measured.curves(), {}
    data_free, fitted = (swept.get(unrounded(method), {}) for method in (BEST, CALIBRATED))
    both = {task: Curve([*points, *fitted.get(task, ())]) for task, points in data_free.items()}
    for method in sorted(curves, key=str.lower):
        ours = both if measured.is_calibrated(method) else curves.get(unrounded(BEST), {})
        tasks = [task for task in measured.tasks if task in ours and task in curves[method]]
        if method in OURS or not tasks:
            continue
        ours, of_task = ({task: curve[task] for task in tasks} for curve in (ours, curves[method]))
        sizes = [share for share in _knots([ours, of_task]) if COMPARED[0] <= share <= COMPARED[1]]
        ratios = [ratio for share in (*sizes, *GRID) if (ratio := ratio_at(share, ours, of_task))]
        table[method] = {
            "calibrated": measured.is_calibrated(method),
            "tasks": tasks,
            "at": [ratio and ratio._asdict() for ratio in (ratio_at(s, ours, of_task) for s in SHARES)],
            "lowest": min(ratios, key=lambda ratio: ratio.errors)._asdict() if ratios else None,
            "least": min((ratio.ratio for ratio in ratios), default=None),
            "settings": [sample.setting for sample in of_task[tasks[0]].front],
        }
    return table


def chosen(points: Iterable[Point]) -> set[tuple[str, str]]:
    """Return name and label of the peers' settings that no smaller one of the same peer beats on a task."""
    by_method: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        if point.few and point.method not in (*OURS, *UNTOUCHED):
            by_method[point.method].append(point)
    return {
        (method, sample.setting) for method, found in by_method.items() for sample in Curve(merge_seeds(found)).front
    }


def rivals(points: Iterable[Point], task: Task) -> set[str]:
    """Return the peers whose KL on a task is below `RIVAL` times that of `best` at some size, or cannot be compared.

    Parameters
    ----------
    points : iterable of Point
        Points of the peers and of `best`.
    task : Task
        The task.
    """
    table = against_peers(Measured(points, [task]))
    return {peer for peer, row in table.items() if row["least"] is None or row["least"] < RIVAL}


def ratio_of_settings(theirs: Sequence[Point], ours: Sequence[Point]) -> Ratio | None:
    """Compare two settings on all tasks, whatever their sizes; None if one is missing."""
    if not theirs or not ours:
        return None
    return Ratio.of(ours[0].share, [LogKl.of(point) for point in theirs], [LogKl.of(point) for point in ours])
