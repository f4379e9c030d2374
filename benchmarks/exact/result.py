"""The content of ``result.json``."""

from dataclasses import asdict
from typing import Any

from benchmarks.common.environment import environment
from benchmarks.exact.bars import bars
from benchmarks.exact.bench import Bench
from benchmarks.exact.peers.packages import requirements


def result_of(bench: Bench) -> dict[str, Any]:
    """Return all that a bench has measured, with date, machine and versions."""
    records, plan = bench.records, bench.plan
    tasks = [task.name for task in plan.tasks]
    found = bars(records.rows, records.speed, records.series, tasks)
    return {
        **environment(),
        "plan": plan.name,
        "tasks": tasks,
        "peers": sorted(requirements().values()),
        "missing": bench.missing,
        "bars": [asdict(bar) for bar in found],
        "rows": [{**asdict(row), "share": row.share, "bits": row.bits} for row in records.rows],
        "speed": [asdict(row) for row in records.speed],
        "series": [{**asdict(row), "share": row.share} for row in records.series],
        "curve": [{**asdict(point), "share": point.share} for point in records.curve],
    }
