"""`dtscodec` with the hashing of base tensors counted, or left out: ``python -m benchmarks.speed.hashing``.

A process of its own, so that nothing that an encode has learned serves the next one.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

# Loaded before the clock starts, as the command loads it only when it is needed.
import dtscodec.encoding.encode  # noqa: F401
from dtscodec.checkpoints import base as base_module
from dtscodec.cli.main import main as dtscodec_main
from dtscodec.files.range_reader import Bytes
from dtscodec.format.content_digest import leaf
from dtscodec.format.dtypes import TensorSpec

NO_LEAF = bytes(32)
"""In place of any leaf: 32 bytes too, so that packs keep their size."""


class Hashing:
    """Stands in for `dtscodec.checkpoints.base.leaf`, which is called for tensors of a base and for no others.

    Parameters
    ----------
    real : bool
        Whether tensors are hashed after all.
    """

    def __init__(self, real: bool) -> None:
        self._real = leaf if real else None
        self.calls, self.hashed, self.seconds = 0, 0, 0.0
        self.leaves: set[bytes] = set()

    def __call__(self, spec: TensorSpec, data: Bytes) -> bytes:
        """A leaf, or what stands in for it."""
        start = time.perf_counter()
        self.calls += 1
        self.hashed += self._real is not None
        leaf = self._real(spec, data) if self._real else NO_LEAF
        self.leaves.add(leaf)
        self.seconds += time.perf_counter() - start
        return leaf


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of `dtscodec` and write down what was hashed, and how long it took without starting Python."""
    options = _parse(argv)
    hashing = Hashing(options.mode == "count")
    with mock.patch.object(base_module, "leaf", hashing):
        start = time.perf_counter()
        code = dtscodec_main(options.command)
        seconds = time.perf_counter() - start
    counts = {"calls": hashing.calls, "hashed": hashing.hashed, "distinct": len(hashing.leaves)}
    options.counts.write_text(json.dumps({**counts, "hashing": hashing.seconds, "seconds": seconds}))
    return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.hashing", description=main.__doc__)
    parser.add_argument("mode", choices=["count", "replace"], help="hash base tensors, or take a constant")
    parser.add_argument("counts", type=Path, help="a JSON file for what was counted")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="arguments of dtscodec")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
