"""Work of one process: all measurements on one fine-tune."""

from pathlib import Path
from typing import Any

from benchmarks.fidelity.ablation import ablate, vary_levels
from benchmarks.fidelity.distance_to_limit import distances
from benchmarks.fidelity.points import Point
from benchmarks.fidelity.sweep import FineTuneBench, sweep
from benchmarks.fidelity.tasks import FULL, TWO_CLASSES, Task


def measure(task: Task, cache: Path, folder: Path, texts: int) -> list[Point]:
    """The sweep, and on one seed's full fine-tunes the ablations; of levels on those of two classes."""
    bench = FineTuneBench(task, cache, folder, texts)
    sweep(bench)
    if task.name in FULL and not task.seed:
        ablate(bench)
    if task.name in TWO_CLASSES and not task.seed:
        vary_levels(bench)
    print(f"{task.name} {task.seed or ''}: {len(bench.log.points)} points", flush=True)
    return bench.log.points


def limit(task: Task, cache: Path, folder: Path, texts: int) -> dict[str, Any]:
    """The distance to the limit."""
    return distances(FineTuneBench(task, cache, folder, texts))
