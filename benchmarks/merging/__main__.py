"""Command line of the benchmark: ``python -m benchmarks.merging``."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.environment import environment
from benchmarks.demo.commands import ROOT
from benchmarks.merging import bases, calibration, dts, esm, lossless, picture, routing, unseen
from benchmarks.merging.bench import MergingBench
from benchmarks.merging.report import merging_page

HERE = Path(__file__).resolve().parent
PARTS: dict[str, Callable[[MergingBench], None]] = {
    bases.PART: bases.run,
    dts.PART: dts.run,
    unseen.PART: unseen.run,
    calibration.PART: calibration.run,
    esm.PART: esm.run,
    routing.PART: routing.run,
    lossless.PART: lossless.run,
    bases.SEVEN: bases.run_seven,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for, or what is missing of them, and print the result; see ``--help``."""
    options = _parse(argv)
    # tokenizers warns where it meets a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    cache = options.cache.resolve()
    bench = MergingBench(cache, cache / "merging")
    place = HERE / "result.json"
    known: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    for part in options.parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        PARTS[part](bench)
        known[part] = {**environment(), "rows": [asdict(row) for row in bench.log.of(part)]}
    result = {part: known[part] for part in PARTS if part in known}
    print(merging_page(result))
    if options.record:
        place.write_text(json.dumps(result, indent=1) + "\n")
        (HERE / "RESULT.md").write_text(merging_page(result))
        picture.draw_merging(result, HERE / "result.png")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.merging",
        description="Merged bases, packs against them, fusion, calibration. An hour on one core; what has been "
        "measured is kept, so a run that was stopped goes on. Parts that are not run keep their results.",
    )
    parser.add_argument(
        "--parts", type=_parts, default=list(PARTS), metavar="A,B", help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".demo", metavar="DIR", help="folder for what is made")
    parser.add_argument("--record", action="store_true", help="write what the documents show")
    return parser.parse_args(argv)


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    for part in parts:
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"expected parts of {', '.join(PARTS)}, got {part!r}")
    return parts


if __name__ == "__main__":
    sys.exit(main())
