"""Command line of the benchmark: ``python -m benchmarks.exact``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.exact.bench import Bench
from benchmarks.exact.picture import draw_exact
from benchmarks.exact.plans import PLANS, WHOLE
from benchmarks.exact.report import exact_page
from benchmarks.exact.result import result_of

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / ".demo"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing and print all that is known; see ``--help``."""
    options = _parse(argv)
    # Peers and trainings fork, and tokenizers warns where it meets a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(1)
    bench = Bench(PLANS[options.plan], options.demo_cache, options.language_cache, options.cache)
    if not options.report:
        bench.run()
    result = result_of(bench)
    place = HERE if options.record else bench.records.folder
    (place / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (place / "RESULT.md").write_text(exact_page(result))
    draw_exact(result, place / "result.png")
    print(exact_page(result))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exact",
        description="Packs that decode bit for bit, beside lossless peers. What has been measured with this code is "
        "kept in the cache, and a run that was interrupted goes on. Peers are installed into the cache.",
    )
    plans = parser.add_mutually_exclusive_group()
    for name in PLANS:
        if name != WHOLE.name:
            plans.add_argument(f"--{name}", dest="plan", action="store_const", const=name, help=f"the plan {name}")
    parser.set_defaults(plan=WHOLE.name)
    parser.add_argument("--demo-cache", type=Path, default=DEMO, help="as of benchmarks.demo")
    parser.add_argument("--language-cache", type=Path, default=DEMO / "language", help="as of benchmarks.language")
    parser.add_argument("--cache", type=Path, default=DEMO / "exact", help="records, packages and temporary files")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what is known")
    parser.add_argument("--record", action="store_true", help="write what the documents show")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
