"""What a process of its own does: everything on one fine-tune."""

from pathlib import Path
from typing import Any

from benchmarks.fidelity.ablation import ablate
from benchmarks.fidelity.distance import distances
from benchmarks.fidelity.points import Point
from benchmarks.fidelity.sweep import Bench, sweep
from benchmarks.fidelity.tasks import TWO_CLASSES, Task


def measure(task: Task, cache: Path, folder: Path, texts: int) -> list[Point]:
    """The sweep, and on fine-tunes of two classes the ablations."""
    bench = Bench(task, cache, folder, texts)
    sweep(bench)
    if task.name in TWO_CLASSES and not task.seed:
        ablate(bench)
    print(f"{task.name} {task.seed or ''}: {len(bench.log.points)} points", flush=True)
    return bench.log.points


def limit(task: Task, cache: Path, folder: Path, texts: int) -> dict[str, Any]:
    """The distance to the limit."""
    return distances(Bench(task, cache, folder, texts))
