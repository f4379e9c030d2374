"""The content of ``result.json``: everything that the page and the picture show."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common.environment import environment
from benchmarks.language.bench import OURS
from benchmarks.language.plans import Plan
from benchmarks.language.points import Point
from benchmarks.language.promises import promises
from benchmarks.language.summary import UNTOUCHED, Measured, against_peers, by_size, by_task, lines
from benchmarks.language.tasks import Task
from benchmarks.language.weights import Weights

RECORDED = Path(__file__).with_name("result.json")
QUICK_SHARES = (0.001, 0.005, 0.02)
"""Sizes at which a quick run has the peers."""


def result_of(points: Iterable[Point], plan: Plan, cache: Path) -> dict[str, Any]:
    """Return the result of a run.

    Parameters
    ----------
    points : iterable of Point
        All points of the run.
    plan : Plan
        What was measured.
    cache : Path
        Folder of downloads and models.
    """
    points = list(points)
    measured = Measured(points, [task for task in plan.tasks if _has_base(points, task)])
    peers = against_peers(measured)
    curves = lines(measured)
    return {
        **environment(),
        "plan": plan.name,
        "few": plan.few,
        "tokens": plan.tokens,
        "tasks": measured.tasks,
        "models": list(model_rows(measured, plan, cache)),
        "promises": promises(measured, peers),
        "sizes": by_size(measured),
        "by_task": by_task(measured),
        "curves": curves,
        "calibrated": {method: measured.is_calibrated(method) for method in curves},
        "peers": peers,
        "quick": quick_settings(measured),
        "rows": list(_rows(measured, is_other=False)),
        "others": list(_rows(measured, is_other=True)),
        "seconds": _seconds(measured.points),
    }


def model_rows(measured: Measured, plan: Plan, cache: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of each task's base and fine-tune."""
    for task in (*plan.tasks, *plan.others):
        base, fine = (measured.one(task.name, method, seed=task.seed) for method in ("base", "fine-tune"))
        if not base or not fine:
            continue  # Not measured yet.
        weights = Weights.of(task, cache)
        yield {
            "task": _named(base),
            "base_perplexity": base.perplexity,
            "perplexity": fine.perplexity,
            "kl": base.kl,
            "kl_error": base.kl_error,
            "agreement": base.agreement,
            "base_exact_match": base.exact_match,
            "exact_match": fine.exact_match,
            "changed": weights.changed_share(),
            "relative_norm": weights.relative_norm(),
        }


def _has_base(points: Iterable[Point], task: Task) -> bool:
    found = {(point.task, point.task_seed, point.few) for point in points if point.method == "base"}
    return {(task.name, task.seed, few) for few in (True, False)} <= found


def _named(point: Point) -> str:
    return f"{point.task}, seed {point.task_seed}" if point.task_seed else point.task


def _rows(measured: Measured, *, is_other: bool) -> Iterator[dict[str, Any]]:
    """Yield the points that are judged on all test tokens: those of the full fine-tunes, or of the others."""
    for point in measured.points:
        found = point.task not in measured.tasks or point.task_seed > 0
        if point.few or point.method in UNTOUCHED or found != is_other:
            continue
        base = measured.one(point.task, "base", seed=point.task_seed)
        if not base:
            continue
        yield {
            "task": _named(point),
            "closed": 1 - point.kl / base.kl if base.kl else 0.0,
            **{
                name: getattr(point, name)
                for name in (
                    *("method", "setting", "bytes", "share", "error", "kl", "kl_error", "agreement", "perplexity"),
                    *("exact_match", "encode_seconds"),
                )
            },
        }


def _seconds(points: Iterable[Point]) -> dict[str, float]:
    """Return the seconds of one core of all points, by method."""
    found: dict[str, float] = defaultdict(float)
    for point in points:
        found[point.method] += point.seconds
    return dict(found)


def quick_settings(measured: Measured) -> list[list[str]]:
    """Return name and setting of the peers that a quick run has: the largest ones within three sizes."""
    found = set()
    for peer, of_task in measured.curves().items():
        if peer in OURS:
            continue
        front = of_task[measured.tasks[0]].front if measured.tasks[0] in of_task else []
        for share in QUICK_SHARES:
            within = [sample for sample in front if sample.share <= 1.1 * share]
            if within:
                found.add((peer, within[-1].setting))
        if front and not any(peer == name for name, _ in found):
            found.add((peer, front[0].setting))
    return [list(pair) for pair in sorted(found)]


def recorded_settings() -> frozenset[tuple[str, str]]:
    """Return the settings of peers for a quick run, by the recorded result; none without one."""
    if not RECORDED.exists():
        return frozenset()
    return frozenset((peer, setting) for peer, setting in json.loads(RECORDED.read_text())["quick"])
