"""How much memory is available on a device."""

from collections.abc import Iterator
from pathlib import Path

import torch


def available_memory(device: str) -> int | None:
    """Return the bytes of memory that a process may still take on a device, or None if that is not known.

    On a GPU it is what is free there. Else it is what Linux has available, and what the container's limit leaves.

    Parameters
    ----------
    device : str
        The device, such as ``"cuda"``.
    """
    kind = torch.device(device)
    if kind.type == "cuda":
        return int(torch.cuda.mem_get_info(kind)[0])
    return min(_of_system(), default=None)


def _of_system(root: Path = Path("/")) -> Iterator[int]:
    """Yield the bounds that the system knows; nothing on other systems than Linux."""
    if (kilobytes := _field(root / "proc/meminfo", "MemAvailable:")) is not None:
        yield 1024 * kilobytes
    # Control groups, version 2, as a container sees its own. Cached files are taken back when memory is needed.
    groups = root / "sys/fs/cgroup"
    try:
        limit = int((groups / "memory.max").read_text())
    except (OSError, ValueError):  # ValueError: it is "max".
        return
    yield limit - (_field(groups / "memory.stat", "anon") or 0)


def _field(path: Path, name: str) -> int | None:
    """Return the number after a name that begins a line of a file; None if there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
