"""Points of all fine-tunes -> what is reported: figures by size, and how far `best` keeps what it promises."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.fidelity.points import Point
from benchmarks.fidelity.sweep import AT_PAPERS, FEW, LARGEST
from benchmarks.fidelity.tasks import TWO_CLASSES

SHARES = (0.0005, 0.001, 0.0025, 0.005, 0.0082, 0.01, 0.02, 0.032)
"""Sizes that the table shows, as shares of the fp32 bytes: within each, a method's best setting counts."""
PAPER, BITDELTA = ("paper", "rank 0.1"), ("BitDelta", "BitDelta (per row)")
OURS = ("best", "paper")
TINY = 1e-12

Curves = Mapping[str, Mapping[str, Sequence[Point]]]
"""Method -> task -> points."""


def geometric(values: Iterable[float]) -> float:
    """Geometric mean; of a KL that is zero to rounding, `TINY` counts.

    >>> round(geometric([1, 100]), 6)
    10.0
    """
    return math.exp(float(np.mean(_logs(values))))


def _logs(values: Iterable[float]) -> list[float]:
    return [math.log(max(value, TINY)) for value in values]


def curves(points: Iterable[Point]) -> dict[str, dict[str, list[Point]]]:
    """The points of a sweep, all judged on the same few texts. Seeds of one setting become their mean."""
    groups: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for point in points:
        if point.texts == FEW and not point.task_seed and not point.method.startswith(("ablation", "levels", "base")):
            groups[point.method, point.task, point.setting].append(point)
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for (method, task, _), group in groups.items():
        found[method][task].append(_mean(group))
    return {method: dict(tasks) for method, tasks in found.items()}


def _mean(group: Sequence[Point]) -> Point:
    """The point whose KL is the mean of the seeds', and all else the first one's."""
    return replace(group[0], kl=sum(point.kl for point in group) / len(group), share=max(p.share for p in group))


def within(points: Iterable[Point], share: float) -> Point | None:
    """Of the points of at most a share the one of least KL."""
    return min((point for point in points if point.share <= share), key=lambda point: point.kl, default=None)


def by_size(found: Curves, tasks: Sequence[str]) -> dict[str, list[dict[str, float] | None]]:
    """For each method and each of `SHARES`: geometric mean of the KL over tasks, its spread as a factor, agreement."""
    table: dict[str, list[dict[str, float] | None]] = {}
    for method, of_task in found.items():
        table[method] = []
        for share in SHARES:
            best = [within(of_task.get(task, ()), share) for task in tasks]
            table[method].append(_figures([point for point in best if point]) if all(best) else None)
    return table


def _figures(points: Sequence[Point]) -> dict[str, float]:
    kls = [point.kl for point in points]
    return {
        "kl": geometric(kls),
        "spread": math.exp(float(np.std(_logs(kls)))),
        "agreement": float(np.mean([point.agreement for point in points])),
    }


def lines(found: Curves, tasks: Sequence[str]) -> dict[str, list[list[float]]]:
    """For each method its line in the picture: share and KL, as the geometric mean over tasks."""
    return {method: list(_line(of_task, tasks)) for method, of_task in found.items() if method != "fine-tune"}


def _line(of_task: Mapping[str, Sequence[Point]], tasks: Sequence[str]) -> Iterator[list[float]]:
    if not all(task in of_task for task in tasks):
        return
    last = float("inf")
    for share in sorted({point.share for task in tasks for point in of_task[task]}):
        best = [within(of_task[task], share) for task in tasks]
        if all(best) and share <= LARGEST:
            kl = geometric(point.kl for point in best if point)
            if kl < last * 0.995:
                last = kl
                yield [share, kl]


def promises(points: Sequence[Point], texts: int) -> dict[str, Any]:
    """Return figures of `best` beside `paper` and BitDelta, on all test texts of every task."""
    at = {(p.task, p.method, p.setting): p for p in points if p.texts == texts and not p.task_seed}
    tasks = sorted({task for task, *_ in at if (task, "best", "0.1%") in at and (task, PAPER[0], PAPER[1]) in at})
    two = [task for task in TWO_CLASSES if task in tasks]
    result: dict[str, Any] = {"tasks": {task: _of_task(at, task) for task in tasks}}
    for setting in ("0.1%", "0.25%", AT_PAPERS):
        if not all((task, "best", setting) in at for task in two):
            continue
        ours = [at[task, "best", setting] for task in two]
        theirs = [at[task, PAPER[0], PAPER[1]] for task in two]
        exact = [at[task, "fine-tune", ""] for task in two]
        result[setting] = {
            "kl_of_paper_by_ours": geometric(p.kl for p in theirs) / geometric(p.kl for p in ours),
            "accuracy_lost": float(np.mean([p.accuracy for p in exact]) - np.mean([p.accuracy for p in ours])),
        }
    return result


def _of_task(at: Mapping[tuple[str, str, str], Point], task: str) -> dict[str, Any]:
    row: dict[str, Any] = {"fine_tune_accuracy": at[task, "fine-tune", ""].accuracy}
    rivals = {name: p for (t, name, s), p in at.items() if t == task and (name in BITDELTA or (name, s) == PAPER)}
    for name, point in rivals.items():
        row[name] = _figures_of(point)
    for setting in ("0.1%", "0.25%", "0.5%", AT_PAPERS):
        if (task, "best", setting) in at:
            ours = at[task, "best", setting]
            row[f"best {setting}"] = _figures_of(ours) | {
                f"agreement_over_{name}_in_standard_errors": paired(ours, point) for name, point in rivals.items()
            }
    return row


def _figures_of(point: Point) -> dict[str, float]:
    return {
        "bytes": point.bytes,
        "share": point.share,
        "kl": point.kl,
        "agreement": point.agreement,
        "accuracy": point.accuracy,
        "error": point.error,
        "seconds": point.seconds,
    }


def paired(ours: Point, theirs: Point) -> float:
    """By how many standard errors of the paired difference one agreement exceeds another on the same texts."""
    difference = ours.agreeing.astype(float) - theirs.agreeing.astype(float)
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return float(difference.mean() / error) if error else 0.0


def ablations(points: Iterable[Point], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Geometric mean of the KL over some tasks, by variant and size; variants of levels last."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for point in points:
        is_one = point.method.startswith(("ablation", "levels")) and point.texts == FEW
        if is_one and point.task in tasks and not point.task_seed:
            groups[point.method, point.setting].append(point.kl)
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for (method, setting), values in sorted(groups.items(), key=lambda item: item[0][0].startswith("levels")):
        table[method][setting] = geometric(values)
    return dict(table)


def seeds(points: Iterable[Point], texts: int) -> dict[str, dict[str, list[float]]]:
    """KL of `best` and `paper` on fine-tunes of other training seeds, by task."""
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in sorted(points, key=lambda point: point.task_seed):
        if point.texts == texts and point.method in OURS and point.setting in ("0.1%", "0.25%", AT_PAPERS, "rank 0.1"):
            table[point.task][f"{point.method} {point.setting}"].append(point.kl)
    return {task: dict(rows) for task, rows in table.items() if any(len(values) > 1 for values in rows.values())}
