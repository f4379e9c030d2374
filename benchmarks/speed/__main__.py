"""Command line of the benchmark: ``python -m benchmarks.speed``."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.environment import environment
from benchmarks.common.run_log import RunLog
from benchmarks.speed.engines import DASK, engine_name
from benchmarks.speed.factors import MODELS, factor_rows
from benchmarks.speed.many_fine_tunes import many_row
from benchmarks.speed.matrices import matrix_rows
from benchmarks.speed.models import model_rows
from benchmarks.speed.report import speed_page
from benchmarks.speed.results import merged
from benchmarks.speed.synthetic_checkpoints import SHAPES

HERE = Path(__file__).resolve().parent
SCRATCH = HERE.parents[1] / ".cache" / "speed"
PARTS = ("matrices", "factors", "models", "many")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and print all that is known by then; see ``--help``."""
    options = _parse(argv)
    torch.set_num_threads(1)
    place = HERE if options.record else options.folder
    record = place / "result.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    log = RunLog(options.log or place / "run.log", _title(options))
    for fresh in _runs(options, log):
        known = merged(known, fresh)
        _write(known, place)  # After each run: what hours have measured must not be lost with the next one.
    print(speed_page(known))
    return 0


def _runs(options: argparse.Namespace, log: RunLog) -> Iterator[dict[str, Any]]:
    """Results of the parts, of each model its own."""
    if "matrices" in options.parts:
        log.say("matrices: one matrix, every way")
        yield {"matrices": {**environment(), "rows": matrix_rows()}}
    if "factors" in options.parts:
        yield {"factors": {**environment(), "rows": factor_rows(MODELS, log)}}
    if "models" in options.parts:
        for name in options.models:
            with _scratch(options.folder) as folder:
                rows = model_rows(name, options.engines, folder, log)
            yield {"models": {name: {**environment(), "rows": rows}}}
    if "many" in options.parts:
        with _scratch(options.folder) as folder:
            row = many_row(options.fine_tunes, folder, log)
        yield {"many": {**environment(), **row}}
    log.say("done")


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent.resolve()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _write(result: dict[str, Any], place: Path) -> None:
    from benchmarks.speed.picture import draw_speed  # Workers of a cluster load this module too, but draw nothing.

    (place / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (place / "RESULT.md").write_text(speed_page(result))
    draw_speed(result, place / "result.png")


def _title(options: argparse.Namespace) -> str:
    return f"{environment()['date']}: {', '.join(options.parts)}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Time encoding. Parts that are not run keep what the result holds of them, and so do models.",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run (default: all)")
    parser.add_argument(
        "--models", nargs="+", choices=list(SHAPES), default=["0.1", "0.5", "1"], help="billions of parameters"
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        type=engine_name,
        default=["1", "2", DASK],
        metavar="ENGINE",
        help=f"numbers of workers, or {DASK} (default: 1 2 {DASK})",
    )
    parser.add_argument(
        "--fine-tunes", type=int, default=20, metavar="N", help="of the part many (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=SCRATCH, help="scratch (default: %(default)s)")
    parser.add_argument("--log", type=Path, help="what is said is appended to it (default: run.log, beside the result)")
    parser.add_argument(
        "--record", action="store_true", help="the result is what the documents show, not one in the scratch folder"
    )
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
