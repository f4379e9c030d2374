"""Whole models: time, memory and bytes moved by an encode, as models grow, and on every engine the same pack."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dtscodec
from benchmarks.common.process_usage import Usage, run_measured
from benchmarks.common.run_log import RunLog, free_space
from benchmarks.speed.engines import running, title
from benchmarks.speed.synthetic_checkpoints import SHAPES, write_pair

SIZE = "0.5%"
PACK = "fine.dts.safetensors"
PASSES = 2
"""Number of times that an encode reads both checkpoints."""


def model_rows(name: str, engines: Sequence[str], folder: Path, log: RunLog) -> list[dict[str, Any]]:
    """Encode a pair of one size (billions of parameters) on every engine; an engine that fails has no row."""
    log.say(f"{name} B: writing two checkpoints, {free_space(folder)}")
    size = write_pair(folder, SHAPES[name])
    log.say(f"{name} B: two checkpoints of {size / 1e9:.2f} GB, {free_space(folder)}")
    rows = []
    for engine in engines:
        try:
            rows.append(_row(name, engine, folder, size, log))
        except SystemExit as failed:
            # Its reason names folders, which have no place in the log.
            print(failed, flush=True)
            log.say(f"{name} B, {title(engine)}: FAILED, left out")
    return rows


def _row(name: str, engine: str, folder: Path, size: int, log: RunLog) -> dict[str, Any]:
    label = f"{name} B, {title(engine)}"

    def report(usage: Usage) -> None:
        log.say(f"{label}: {progress(usage, size)}")

    log.say(f"{label}: dtscodec encode base fine --size {SIZE}")
    # A cluster's workers have a folder of their own, so that paths are absolute.
    command = ["encode", str(folder / "base"), str(folder / "fine"), "-o", PACK, "--size", SIZE, "--force"]
    with running(engine) as (arguments, beside):
        usage = run_measured([*command, *arguments], folder, beside=beside, report=report)
    log.say(f"{label}: done, {progress(usage, size)}; {free_space(folder)}")
    return {
        "engine": engine,
        "parameters": SHAPES[name].parameters(),
        "checkpoint": size,
        "seconds": round(usage.seconds, 1),
        "peak": usage.peak_memory,
        **usage.moved._asdict(),
        **identity(folder / PACK),
    }


def progress(usage: Usage, size: int) -> str:
    """Return the progress of an encode of two checkpoints of this size as text; each pass reads both."""
    read, written, fetched = (count / 1e9 for count in usage.moved)
    whole = 2 * PASSES * size / 1e9
    return (
        f"{usage.seconds:.1f} s, read {read:.2f} of about {whole:.2f} GB ({fetched:.2f} from storage), "
        f"wrote {written:.3f} GB, peak memory {usage.peak_memory / 1e9:.2f} GB"
    )


def identity(pack: Path) -> dict[str, Any]:
    """Size and id of a pack, and a digest of all its bytes."""
    with dtscodec.open(pack) as opened:
        pack_id = opened.id
    return {"pack": pack.stat().st_size, "pack_id": pack_id, "sha256": hashlib.sha256(pack.read_bytes()).hexdigest()}
