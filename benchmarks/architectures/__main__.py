"""Command line of the table: ``python -m benchmarks.architectures``."""

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.architectures.page import architectures_page
from benchmarks.architectures.table import ARCHITECTURES, check
from benchmarks.common.environment import environment
from benchmarks.common.process_usage import ROOT

PAGE = ROOT / "docs" / "architectures.md"
LIBRARIES = ("peft", "diffusers", "sentence-transformers")
"""Libraries whose versions count, beside those of `environment`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a cell fails."""
    arguments = _parse(argv)
    names = [name for name in ARCHITECTURES if not arguments.only or _matches(name, arguments.only)]
    if not names:
        raise SystemExit(f"expected one of {', '.join(ARCHITECTURES)}, got {arguments.only}")
    rows = []
    for name in names:
        rows.append(check(ARCHITECTURES[name]))
        print(f"{name}: {rows[-1].seconds:.1f} s", *rows[-1].failures, sep="\n  ", file=sys.stderr, flush=True)
    page = architectures_page(rows, _environment())
    if arguments.json:
        print(json.dumps({**_environment(), "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        print(page)
    if arguments.record:
        PAGE.write_text(page)
    return 1 if any(row.failures for row in rows) else 0


def _matches(name: str, chosen: Sequence[str]) -> bool:
    """Return whether a name begins with one that was chosen, in any case."""
    return any(name.lower().startswith(choice.lower()) for choice in chosen)


def _environment() -> dict[str, Any]:
    known = environment()
    more = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return known | {"versions": known["versions"] | more}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.architectures",
        description="Check all functions of dtscodec on small models of many architectures.",
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this architecture (the beginning of its name); repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--record", action="store_true", help=f"write docs/{PAGE.name}")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
