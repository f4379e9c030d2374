"""Command line: ``python -m benchmarks.decode``."""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.common.environment import environment
from benchmarks.decode import measurements
from benchmarks.decode.report import PARTS, decoding_page

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for, and print all that is known by then; see ``--help``."""
    options = _parse(argv)
    place = HERE / "result.json"
    known: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    for part in options.parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        # Each in a process of its own: what one part leaves in memory would be another's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows = pool.submit(measurements.run, part, options.threads).result()
        known[part] = {**environment(), "threads": options.threads, "rows": rows}
        if options.record:
            place.write_text(json.dumps(known, indent=1) + "\n")
            (HERE / "RESULT.md").write_text(decoding_page(known))
    print(decoding_page({part: known[part] for part in PARTS if part in known}))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode",
        description="Time decoding and packs in running models. Parts that are not run keep their results.",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to run (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result that the documents show")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
