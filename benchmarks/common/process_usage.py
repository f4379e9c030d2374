"""Run a command of ours and see what it and its workers take. Linux only."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
"""As this process got it: a Dask cluster that was started here leaves its workers' settings of malloc in ours."""
SAMPLE_SECONDS = 0.02
TELL_SECONDS = 30


class Moved(NamedTuple):
    """Bytes that processes read and wrote by system calls, and those of them that storage had to deliver.

    Pipes count; sockets and mapped files, such as the libraries of torch, do not.
    """

    read: int = 0
    written: int = 0
    fetched: int = 0


class Taken(NamedTuple):
    """What a command took: bytes of anonymous memory at its peak and bytes moved, workers included, and seconds."""

    anonymous: int
    seconds: float
    moved: Moved = Moved()


def watch(
    arguments: Sequence[str],
    folder: Path,
    *,
    module: str = "dtscodec",
    beside: Sequence[int] = (),
    tell: Callable[[Taken], None] = lambda taken: None,
) -> Taken:
    """Run a module of ours in a folder as a process of its own, looking at it until it ends.

    Parameters
    ----------
    arguments : sequence of str
    folder : Path
    module : str
        By default the command `dtscodec`.
    beside : sequence of int
        Processes that work for it without being its children: a cluster's workers.
    tell : callable
        Told now and then what it has taken so far.
    """
    start = time.perf_counter()
    before = _moved(_family(beside))
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=folder, env=ENVIRONMENT)
    taken, told = Taken(0, 0.0), 0.0
    try:
        while True:
            # A process that has ended but was not waited for still has its counts: the last look misses nothing.
            last = _has_ended(process.pid)
            taken = _look([process.pid, *beside], start, before, taken)
            if last:
                break
            if taken.seconds > told + TELL_SECONDS:
                told = taken.seconds
                tell(taken)
            time.sleep(SAMPLE_SECONDS)
    finally:
        process.kill()
        code = process.wait()
    if code != 0:
        raise SystemExit(f"{module} {' '.join(arguments)}: expected exit code 0, got {code}")
    return taken


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _look(pids: Sequence[int], start: float, before: Moved, so_far: Taken) -> Taken:
    """What was taken so far, after another look.

    A process's counts of bytes take in those of each child that has ended, once it was waited for. So the sum over all
    that are alive never falls, but for the moment in which a child goes over to its parent. `tree` names parents first:
    such a child may be missed by a look, never counted twice, and the largest sum is the whole.
    """
    family = _family(pids)
    moved = (now - then for now, then in zip(_moved(family), before, strict=True))
    return Taken(
        max(so_far.anonymous, sum(map(anonymous_memory, family))),
        time.perf_counter() - start,
        Moved(*map(max, so_far.moved, moved)),
    )


def _family(pids: Sequence[int]) -> list[int]:
    return [member for pid in pids for member in tree(pid)]


def _moved(pids: Sequence[int]) -> Moved:
    return Moved(*map(sum, zip(Moved(), *map(moved_bytes, pids), strict=True)))


def tree(pid: int) -> list[int]:
    """A process and all that it started, parents first.

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
    """Bytes of anonymous memory of a process, in RAM or swapped out; 0 once it has ended.

    >>> import os
    >>> anonymous_memory(os.getpid()) > 1_000_000
    True
    """
    fields = _fields(Path(f"/proc/{pid}/status"))
    return sum(1024 * int(fields[key].split()[0]) for key in ("RssAnon", "VmSwap") if key in fields)


def moved_bytes(pid: int) -> Moved:
    """Bytes that a process has moved since it began; none once it was waited for.

    >>> import os
    >>> moved_bytes(os.getpid()).read > 1_000_000
    True
    """
    fields = _fields(Path(f"/proc/{pid}/io"))
    return Moved(*(int(fields.get(key, 0)) for key in ("rchar", "wchar", "read_bytes")))


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _lines(path) if ":" in line)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
