"""Run a command of ours and see what it and its workers take. Linux only."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SAMPLE_SECONDS = 0.02


class Taken(NamedTuple):
    """What a command took: bytes of anonymous memory at its peak, workers included, and seconds."""

    anonymous: int
    seconds: float


def watch(arguments: Sequence[str], folder: Path) -> Taken:
    """Run `dtscodec` in a folder as a process of its own, looking at it until it ends."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dtscodec", *arguments], cwd=folder)
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, sum(map(anonymous_memory, tree(process.pid))))
            time.sleep(SAMPLE_SECONDS)
    finally:
        process.kill()
        code = process.wait()
    if code != 0:
        raise SystemExit(f"dtscodec {' '.join(arguments)}: expected exit code 0, got {code}")
    return Taken(peak, time.perf_counter() - start)


def tree(pid: int) -> list[int]:
    """A process and all that it started.

    >>> import os
    >>> os.getpid() in tree(os.getpid())
    True
    """
    children = _lines(Path(f"/proc/{pid}/task/{pid}/children"))
    return [pid, *(other for child in " ".join(children).split() for other in tree(int(child)))]


def anonymous_memory(pid: int) -> int:
    """Bytes of anonymous memory of a process, in RAM or swapped out; 0 once it has ended.

    >>> import os
    >>> anonymous_memory(os.getpid()) > 1_000_000
    True
    """
    fields = _fields(Path(f"/proc/{pid}/status"))
    return sum(1024 * int(fields[key].split()[0]) for key in ("RssAnon", "VmSwap") if key in fields)


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _lines(path) if ":" in line)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
