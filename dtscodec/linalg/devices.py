"""Where torch computes: on which device, and on how many threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.errors import BackendError
from dtscodec.linalg.factored_matrix import Factored


def usable_device(device: str | torch.device) -> torch.device:
    """A device by its name.

    Raises
    ------
    BackendError
        There is none, or it holds no data.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise BackendError(f"device '{device}': expected one that torch can use here, got '{reason}'") from error
    if found.type == "meta":
        raise BackendError(f"device '{device}': expected one that holds data, got none that does")
    return found


def product(left: Tensor, right: Tensor | Factored) -> Tensor:
    """The product of a large matrix, wherever it lies, and a thin block, which goes there; it comes back here.

    A matrix that is known by its factors is multiplied factor by factor.
    """
    if isinstance(right, Factored):
        return product(product(left, right.left), right.right)
    device = left.device if right.device.type == "cpu" else right.device
    return (left.to(device) @ right.to(device)).cpu()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: its SVD and sums give other last bits on each number of threads.

    A pack must not depend on how many cores made it. The setting is the process's, so the last of all threads that are
    in here puts it back.
    """
    with _threads.lock:
        if not _threads.inside:
            _threads.before = torch.get_num_threads()
        _threads.inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _threads.lock:
            _threads.inside -= 1
            if not _threads.inside:
                torch.set_num_threads(_threads.before)


@dataclass(slots=True)
class _Threads:
    """How many threads are inside `one_thread`, and torch's setting before."""

    lock: threading.Lock
    inside: int = 0
    before: int = 1


_threads = _Threads(threading.Lock())
