"""Run a command and measure the memory and the bytes moved of its processes. Linux only."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
"""A copy from the start: a Dask cluster that is started here leaves its workers' settings of malloc in ours."""
SAMPLE_SECONDS = 0.02
REPORT_SECONDS = 30


class BytesMoved(NamedTuple):
    """Bytes that processes read and wrote by system calls, and how many of them storage had to deliver.

    Pipes count; sockets and mapped files, such as the libraries of torch, do not.
    """

    read: int = 0
    written: int = 0
    fetched: int = 0


class Usage(NamedTuple):
    """Peak of anonymous memory in bytes, seconds, and bytes moved; all processes of a command together."""

    peak_memory: int
    seconds: float
    moved: BytesMoved = BytesMoved()


def run_measured(
    arguments: Sequence[str],
    folder: Path,
    *,
    module: str = "dtscodec",
    beside: Sequence[int] = (),
    report: Callable[[Usage], None] = lambda usage: None,
) -> Usage:
    """Run a module in a folder as a process of its own, and sample its usage until it ends.

    Parameters
    ----------
    arguments : sequence of str
    folder : Path
    module : str
        By default the command `dtscodec`.
    beside : sequence of int
        Processes that work for it without being its children: a cluster's workers.
    report : callable
        Called every half minute with the usage so far.
    """
    start = time.perf_counter()
    before = _moved(_family(beside))
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=folder, env=ENVIRONMENT)
    usage, reported = Usage(0, 0.0), 0.0
    try:
        while True:
            # A process that has ended but was not waited for still has its counts: the last sample misses nothing.
            last = _has_ended(process.pid)
            usage = _sample([process.pid, *beside], start, before, usage)
            if last:
                break
            if usage.seconds > reported + REPORT_SECONDS:
                reported = usage.seconds
                report(usage)
            time.sleep(SAMPLE_SECONDS)
    finally:
        process.kill()
        code = process.wait()
    if code != 0:
        raise SystemExit(f"{module} {' '.join(arguments)}: expected exit code 0, got {code}")
    return usage


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _sample(pids: Sequence[int], start: float, before: BytesMoved, so_far: Usage) -> Usage:
    """Return the usage so far, with another sample.

    A process's counts of bytes take in those of each child that has ended, once it was waited for. So the sum over all
    that are alive never falls, but for the moment in which a child goes over to its parent. `tree` names parents first:
    such a child may be missed by a sample, never counted twice, and the largest sum is the whole.
    """
    family = _family(pids)
    moved = (now - then for now, then in zip(_moved(family), before, strict=True))
    return Usage(
        max(so_far.peak_memory, sum(map(anonymous_memory, family))),
        time.perf_counter() - start,
        BytesMoved(*map(max, so_far.moved, moved)),
    )


def _family(pids: Sequence[int]) -> list[int]:
    return [member for pid in pids for member in tree(pid)]


def _moved(pids: Sequence[int]) -> BytesMoved:
    return BytesMoved(*map(sum, zip(BytesMoved(), *map(moved_bytes, pids), strict=True)))


def tree(pid: int) -> list[int]:
    """Return a process and all that it started, parents first.

    >>> import os
    >>> os.getpid() in tree(os.getpid())
    True
    """
    # Children are listed with the thread that started them.
    children = (line for thread in _threads(pid) for line in _lines(Path(f"/proc/{pid}/task/{thread}/children")))
    return [pid, *(other for child in " ".join(children).split() for other in tree(int(child)))]


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []


def anonymous_memory(pid: int) -> int:
    """Return the bytes of anonymous memory of a process, in RAM or swapped out; 0 once it has ended.

    >>> import os
    >>> anonymous_memory(os.getpid()) > 1_000_000
    True
    """
    fields = _fields(Path(f"/proc/{pid}/status"))
    return sum(1024 * int(fields[key].split()[0]) for key in ("RssAnon", "VmSwap") if key in fields)


def moved_bytes(pid: int) -> BytesMoved:
    """Return the bytes that a process has moved since it began; none once it was waited for.

    >>> import os
    >>> moved_bytes(os.getpid()).read > 1_000_000
    True
    """
    fields = _fields(Path(f"/proc/{pid}/io"))
    return BytesMoved(*(int(fields.get(key, 0)) for key in ("rchar", "wchar", "read_bytes")))


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _lines(path) if ":" in line)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
