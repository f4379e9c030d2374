"""Command line of the benchmark: ``python -m benchmarks.fidelity``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.common.environment import environment
from benchmarks.demo import commands, data
from benchmarks.demo.finetune import base_directory
from benchmarks.fidelity import picture, summary
from benchmarks.fidelity.bfloat16_lora import half_rows
from benchmarks.fidelity.report import fidelity_page
from benchmarks.fidelity.single_task_rows import container_row, lora_rows, package_rows
from benchmarks.fidelity.sweep import FEW, FineTuneBench
from benchmarks.fidelity.tasks import FULL, LORA, TWO_CLASSES, Task
from benchmarks.fidelity.worker import limit, measure

HERE = Path(__file__).resolve().parent
CACHE = commands.ROOT / ".demo"
SEEDED = [Task(name, seed) for name in ("tweets", "amazon") for seed in (1, 2)]
LIMITED = ("tweets", "nyt")
"""Fine-tunes whose distance to the limit is measured."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything, or what is missing of it, and print the result; see ``--help``."""
    options = _parse(argv)
    # tokenizers warns where it meets a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    cache = options.cache.resolve()
    folder = cache / "fidelity"
    folder.mkdir(parents=True, exist_ok=True)
    data.fetch(cache)
    for task in _tasks():
        print(f"{task.name} {task.seed or ''}: {task.directory(cache)}", flush=True)
    result = _result(cache, folder, options)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(fidelity_page(result))
    if options.record:
        (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        (HERE / "RESULT.md").write_text(fidelity_page(result))
        picture.draw_fidelity(result, HERE / "result.png")
    return 0


def _tasks() -> list[Task]:
    return [*map(Task, FULL), Task(LORA), *SEEDED]


def _result(cache: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the content of ``result.json``."""
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        runs = [pool.submit(measure, task, cache, folder, options.texts) for task in _tasks()]
        points = [point for run in runs for point in run.result()]
        limits = {name: pool.submit(limit, Task(name), cache, folder, options.texts) for name in LIMITED}
        distance = {name: run.result() for name, run in limits.items()}
    two, sixteen = (summary.curves(points), [*TWO_CLASSES]), (summary.curves(points), [data.SIXTEEN])
    lora, tweets = (FineTuneBench(Task(name), cache, folder, options.texts) for name in (LORA, "tweets"))
    return {
        **environment(),
        "texts": options.texts,
        "few": FEW,
        "two_classes": summary.by_size(*two),
        "sixteen": summary.by_size(*sixteen),
        "curves": {"two_classes": summary.lines(*two), "sixteen": summary.lines(*sixteen)},
        "promises": summary.promises(points, options.texts),
        "lora": lora_rows(lora),
        "half": half_rows(lora.weights),
        "container": container_row(tweets),
        "ablations": {
            "two_classes": summary.ablations(points, TWO_CLASSES),
            "sixteen": summary.ablations(points, [data.SIXTEEN]),
        },
        "seeds": summary.seeds(points, options.texts),
        "distances": distance,
        "packages": package_rows(tweets, options.python),
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description="Bytes against behaviour: our presets and their peers on real fine-tunes. Hours on two cores; what "
        "has been measured is kept, so a run that was stopped goes on.",
    )
    parser.add_argument(
        "--texts", type=int, default=data.TEST_SIZE, metavar="N", help="texts that promises are held on"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes, of one thread each")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="folder for what is made")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of an environment that has zipnn and sparse-llm"
    )
    parser.add_argument("--record", action="store_true", help="write what the README shows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    base_directory()
    sys.exit(main())
