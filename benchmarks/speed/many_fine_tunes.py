"""Many fine-tunes of one base: one command, against as many that need not hash the base at all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.process_usage import Usage, run_measured
from benchmarks.common.run_log import RunLog, free_space
from benchmarks.speed.models import SIZE
from benchmarks.speed.synthetic_checkpoints import SHAPES, write_family

MODEL = "0.1"
COUNTS = "counts.json"


def many_row(count: int, folder: Path, log: RunLog) -> dict[str, Any]:
    """Encode so many fine-tunes together and one by one.

    The runs one by one take a constant for every leaf of the base: they show what the fine-tunes cost if their base
    cost no hashing. What they start and open again each time counts in `seconds`; `coding` is without starting Python
    and loading torch.
    """
    log.say(f"many: writing a base of {MODEL} B and {count} fine-tunes, {free_space(folder)}")
    names = [f"ft{number}" for number in range(1, count + 1)]
    size = write_family(folder, SHAPES[MODEL], {name: f"{name} " for name in names})
    log.say(f"many: written, {free_space(folder)}")
    together = _run("count", names, "together/", folder)
    log.say(f"many: {count} by one command in {together['seconds']} s, {together['hashed']} tensors hashed")
    single = []
    for name in names:
        single.append(_run("replace", [name], "single/", folder))
        log.say(f"many: {name} alone in {single[-1]['seconds']} s, {single[-1]['hashed']} tensors hashed")
    return {
        "model": MODEL,
        "fine_tunes": count,
        "parameters": SHAPES[MODEL].parameters(),
        "checkpoint": size,
        "base_tensors": len(SHAPES[MODEL].tensors()),
        "together": together,
        "single": {key: sum(run[key] for run in single) for key in ("seconds", "coding", "calls", "hashed")},
        "same_sizes": _sizes(folder / "together") == _sizes(folder / "single"),
    }


def _run(mode: str, names: Sequence[str], out: str, folder: Path) -> dict[str, Any]:
    command = ["encode", "base", *names, "-o", out, "--size", SIZE]
    usage = run_measured([mode, COUNTS, *command], folder, module="benchmarks.speed.hashing")
    return {**_counted(json.loads((folder / COUNTS).read_text())), **_usage_figures(usage)}


def _counted(counts: dict[str, Any]) -> dict[str, Any]:
    coding, hashing = round(counts.pop("seconds"), 2), round(counts.pop("hashing"), 2)
    return {**counts, "coding": coding, "hashing": hashing}


def _usage_figures(usage: Usage) -> dict[str, Any]:
    return {"seconds": round(usage.seconds, 2), "peak": usage.peak_memory, **usage.moved._asdict()}


def _sizes(folder: Path) -> dict[str, int]:
    """Sizes of the packs of a folder: a constant for a leaf changes what they say of the base, not their length."""
    return {path.name: path.stat().st_size for path in (folder / "packs").iterdir()}
