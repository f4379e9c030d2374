"""Work of one process: our presets or the peers on one fine-tune."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.language.bench import LanguageBench
from benchmarks.language.finetune import fine_tune
from benchmarks.language.plans import Plan
from benchmarks.language.points import Point
from benchmarks.language.summary import chosen, rivals
from benchmarks.language.sweep import ours, peers, untouched
from benchmarks.language.tasks import Task

PeerSettings: TypeAlias = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Job:
    """Measurements on one fine-tune.

    Parameters
    ----------
    task : Task
        The fine-tune.
    plan : Plan
        How much is measured.
    cache : Path
        Folder of downloads, models and points.
    only_known : bool
        Measure nothing.
    """

    task: Task
    plan: Plan
    cache: Path
    only_known: bool = False

    def run(self) -> list[Point]:
        """Measure what is missing, and return all points of the job."""
        bench = LanguageBench(self.task, self.cache, self.plan, only_known=self.only_known)
        self.measure(bench)
        return bench.points

    def measure(self, bench: LanguageBench) -> None:
        """Measure what is missing: base, fine-tune and our presets."""
        is_full = self.task in self.plan.tasks
        untouched(bench)
        ours(bench, *((self.plan.sizes, self.plan.calibrated_sizes) if is_full else (self.plan.few_sizes,) * 2))


@dataclass(frozen=True, slots=True)
class UntouchedJob(Job):
    """Base and fine-tune only."""

    def measure(self, bench: LanguageBench) -> None:
        """Measure what is missing."""
        untouched(bench)


@dataclass(frozen=True, slots=True)
class PeerJob(Job):
    """The peers.

    Parameters
    ----------
    settings : frozenset of (str, str), optional
        Names of peers and labels of the settings to run; all by default.
    """

    settings: PeerSettings | None = None

    def measure(self, bench: LanguageBench) -> None:
        """Measure what is missing."""
        peers(bench, self.settings)


RunAll = Callable[[Callable[[Job], list[Point]], Iterable[Job]], Iterable[list[Point]]]
"""`map`, or that of a pool of processes."""


def measure_all(
    plan: Plan, cache: Path, run_all: RunAll, settings: PeerSettings | None, *, only_known: bool = False
) -> list[Point]:
    """Train the fine-tunes that are missing, measure on all of them, and return all points.

    Parameters
    ----------
    plan : Plan
        How much is measured.
    cache : Path
        Folder of downloads, models and points.
    run_all : callable
        Maps jobs to their points.
    settings : frozenset of (str, str), optional
        Names of peers and labels of the settings to run. By default all run on the first task. Of the peers that come
        near `best` there (`rivals`), those that no smaller one beats run on the others.
    only_known : bool
        Train and measure nothing.
    """
    first, *rest = plan.tasks
    for task in () if only_known else (*plan.tasks, *plan.others):
        fine_tune(task, cache)
    jobs = [Job(task, plan, cache, only_known) for task in (*plan.tasks, *plan.others)]
    jobs.insert(0, PeerJob(first, plan, cache, only_known, settings))
    found = list(run_all(Job.run, jobs))
    if settings is None:
        near = rivals([*found[0], *found[1]], first)
        settings = frozenset(pair for pair in chosen(found[0]) if pair[0] in near)
    found += run_all(Job.run, [PeerJob(task, plan, cache, only_known, settings) for task in rest])
    return [point for points in found for point in points]
