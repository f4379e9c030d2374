"""Command line of the benchmark: ``python -m benchmarks.speed``."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.demo.report import circumstances
from benchmarks.speed.matrices import matrix_rows
from benchmarks.speed.models import SIZE, model_rows
from benchmarks.speed.pair import SHAPES

HERE = Path(__file__).resolve().parent
SCRATCH = HERE.parents[1] / ".cache" / "speed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything and print it; see ``--help``."""
    options = _parse(argv)
    torch.set_num_threads(1)
    result = {
        **circumstances(),
        "matrices": matrix_rows(),
        "models": model_rows(options.models, options.workers, options.folder),
    }
    print(markdown(result))
    if options.record:
        (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        (HERE / "RESULT.md").write_text(markdown(result))
    return 0


def markdown(result: Mapping[str, Any]) -> str:
    """All tables of a result (the content of ``result.json``)."""
    machine, versions = result["machine"], result["versions"]
    head = (
        f"# Speed of encoding\n\nPrinted by `python -m benchmarks.speed` on {result['date']}: {machine['processor']}, "
        f"{machine['cores']} cores, torch {versions['torch']}, Python {versions['python']}.\n\n"
    )
    return head + _matrices(result["matrices"]) + "\n" + _models(result["models"])


def _matrices(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "## One matrix, on one thread\n",
        "| matrix | rank | what | seconds | times as fast as the full SVD |",
        "| --- | --- | --- | --- | --- |",
    ]
    notes = []
    for row in rows:
        full, name = row["seconds"]["full SVD"], " x ".join(map(str, row["shape"]))
        lines += [
            f"| {name} | {row['rank']} | {what} | {seconds:.2f} | {full / seconds:.1f} |"
            for what, seconds in row["seconds"].items()
        ]
        exact, ours = row["error"]["from exact factors"], row["error"]["from ours"]
        notes.append(f"{name}: error after refits {ours:.4f}, {ours / exact:.4f} times that from exact factors.")
    return "\n".join([*lines, "", *notes, ""])


def _models(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"## Whole models, bf16, `--size {SIZE}`\n",
        "| parameters | checkpoint | workers | seconds | ns a parameter | peak memory | pack |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        each = row["seconds"] / row["parameters"] * 1e9
        lines.append(
            f"| {row['parameters'] / 1e9:.2f} B | {row['checkpoint'] / 1e9:.2f} GB | {row['workers']} "
            f"| {row['seconds']} | {each:.0f} | {row['peak'] / 1e9:.2f} GB "
            f"| {row['pack'] / 1e6:.1f} MB |"
        )
    return "\n".join([*lines, "", "Peak memory: anonymous, workers included.", ""])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Time encoding.")
    parser.add_argument(
        "--models", nargs="*", choices=list(SHAPES), default=["0.1", "0.5", "1"], help="billions of parameters"
    )
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--folder", type=Path, default=SCRATCH, help="scratch (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write what the documents show")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
