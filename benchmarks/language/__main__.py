"""Command line of the benchmark: ``python -m benchmarks.language``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.language.base import base_directory
from benchmarks.language.calibration import Calibration
from benchmarks.language.peers import first_settings
from benchmarks.language.picture import draw_language
from benchmarks.language.plans import QUICK, TINY, WHOLE, Plan
from benchmarks.language.points import Point
from benchmarks.language.report import language_page, models_table
from benchmarks.language.result import RECORDED, model_rows, recorded_settings, result_of
from benchmarks.language.summary import Measured
from benchmarks.language.tiny import fill_cache
from benchmarks.language.worker import Job, RunAll, UntouchedJob, measure_all

CACHE = Path(__file__).resolve().parents[2] / ".demo"


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything, or what is missing of it, and print the result; see ``--help``."""
    options = _parse(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tokenizers warns where it meets a fork.
    plan = TINY if options.tiny else QUICK if options.quick else WHOLE
    cache = (options.cache or CACHE / ("language-tiny" if options.tiny else "language")).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    if options.tiny and not (cache / "base").exists():
        fill_cache(cache)
    base_directory(cache)
    if options.models:
        points = _measured(plan, cache, options.workers, only_models=True)
        print(models_table(model_rows(Measured(points, plan.tasks), plan, cache)))
        return 0
    if options.known:
        result = result_of(_points(plan, cache, map, only_known=True), plan, cache)
    else:
        result = result_of(_measured(plan, cache, options.workers), plan, cache)
    (cache / f"result-{plan.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(language_page(result))
    if options.record:
        RECORDED.write_text(json.dumps(result, indent=1) + "\n")
        RECORDED.with_name("RESULT.md").write_text(language_page(result))
        draw_language(result, RECORDED.with_name("result.png"))
    return 0


def _measured(plan: Plan, cache: Path, workers: int, *, only_models: bool = False) -> list[Point]:
    if not workers:
        return _points(plan, cache, map, only_models=only_models)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return _points(plan, cache, pool.map, only_models=only_models)


def _points(
    plan: Plan, cache: Path, run_all: RunAll, *, only_models: bool = False, only_known: bool = False
) -> list[Point]:
    if only_models:
        jobs = [UntouchedJob(task, plan, cache) for task in (*plan.tasks, *plan.others)]
        return [point for points in run_all(Job.run, jobs) for point in points]
    first = first_settings(Calibration(plan.tasks[0], cache))
    match plan.peers:
        case "all":
            settings = None
        case "recorded":
            # Without a recorded run there is no choice yet.
            settings = recorded_settings() or first
        case "first":
            settings = first
    return measure_all(plan, cache, run_all, settings, only_known=only_known)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.language",
        description="Bytes against behaviour on fine-tunes of a language model: our presets and their peers. Hours on "
        "two cores; what has been measured is kept, so a run that was stopped goes on.",
    )
    parser.add_argument("--quick", action="store_true", help="two tasks and three sizes, within an hour")
    parser.add_argument("--tiny", action="store_true", help="a random model of two layers, in seconds")
    parser.add_argument("--models", action="store_true", help="print figures of bases and fine-tunes only")
    parser.add_argument("--known", action="store_true", help="measure nothing: print what has been measured so far")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes, of one thread each; 0 for none")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for what is made")
    parser.add_argument("--record", action="store_true", help="write what the documentation shows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
