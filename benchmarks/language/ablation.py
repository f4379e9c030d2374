"""What ingredients of `best` are worth on language models: ``python -m benchmarks.language.ablation``.

The same sizes with one ingredient taken out, as real files, judged on 2,048 test tokens. Points are kept, so a run that
was stopped goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.common.environment import environment
from benchmarks.demo.commands import ROOT
from benchmarks.language.bench import LanguageBench
from benchmarks.language.plans import QUICK
from benchmarks.language.tasks import FULL
from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.targets import Size

VARIANTS = {
    "best": Recipe(),
    "one gain for all components": Recipe(direction_gains=False),
    "rounded to nearest": Recipe(dithers=False),
    "one gain, rounded to nearest": Recipe(direction_gains=False, dithers=False),
    "levels of Lloyd and Max": Recipe(fitted_levels=True),
    "precision counted in full": Recipe(precision_weight=1.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the table; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language.ablation")
    parser.add_argument("--cache", type=Path, default=ROOT / ".demo" / "language", metavar="DIR")
    parser.add_argument("--tasks", nargs="+", default=["style"], choices=[task.name for task in FULL])
    parser.add_argument("--sizes", nargs="+", default=["0.5%", "1.74%"])
    parser.add_argument("--variants", type=int, default=len(VARIANTS), metavar="N", help="only the first N")
    options = parser.parse_args(argv)
    where = environment()
    print(f"Machine: {where}")
    print("| task | size | variant | KL | standard error | agrees | delta's error |\n|---|---|---|---|---|---|---|")
    for task in FULL:
        if task.name in options.tasks:
            bench = LanguageBench(task, options.cache.resolve(), replace(QUICK, promised=()))
            for size in options.sizes:
                for name, recipe in [*VARIANTS.items()][: options.variants]:
                    bench.ours(f"ablation: {name}", size, partial(EncodeConfig, Size.parse(size), Best(recipe)))
                    point = bench.points[-1]
                    print(
                        f"| {task.name} | {size} | {name} | {point.kl:.5f} | {point.kl_error:.5f} "
                        f"| {100 * point.agreement:.1f} % | {point.error:.3f} |",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
