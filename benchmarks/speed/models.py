"""Whole models: time and memory of an encode, as models and the number of workers grow."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.pair import SHAPES, write_pair
from benchmarks.watch import watch

SIZE = "0.5%"
PACK = "fine.dts.safetensors"
LARGE = 2e9


def model_rows(names: Sequence[str], workers: Sequence[int], scratch: Path) -> list[dict[str, Any]]:
    """Encode models of these sizes (billions of parameters), with every number of workers; large ones with the last."""
    return [row for name in names for row in _rows(name, workers, scratch)]


def _rows(name: str, workers: Sequence[int], scratch: Path) -> list[dict[str, Any]]:
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}B-", dir=scratch))
    try:
        print(f"{name} B: writing two checkpoints to {folder}, {_free(folder):.0f} GB free", flush=True)
        size = write_pair(folder, SHAPES[name])
        counts = workers if SHAPES[name].parameters() < LARGE else workers[-1:]
        return [_row(name, count, folder, size) for count in counts]
    finally:
        shutil.rmtree(folder)


def _row(name: str, workers: int, folder: Path, size: int) -> dict[str, Any]:
    command = ["encode", "base", "fine", "-o", PACK, "--size", SIZE, "--workers", str(workers), "--force"]
    taken = watch(command, folder)
    row = {
        "model": name,
        "parameters": SHAPES[name].parameters(),
        "checkpoint": size,
        "workers": workers,
        "pack": (folder / PACK).stat().st_size,
        "seconds": round(taken.seconds, 1),
        "peak": taken.anonymous,
    }
    print(row, flush=True)
    return row


def _free(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9
