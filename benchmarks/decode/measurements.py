"""The parts of the benchmark, by name."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.decode import matrix, resident, side_branches, switch

RUNS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "matrix": matrix.rows,
    "switch": switch.switch_rows,
    "checkpoint": switch.checkpoint_rows,
    "side": side_branches.rows,
    "resident": lambda: [resident.row()],
}


def run(part: str, threads: int) -> list[dict[str, Any]]:
    """Measure one part, with torch on `threads` threads."""
    torch.set_num_threads(threads)
    return RUNS[part]()
