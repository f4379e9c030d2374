"""Devices and threads that torch computes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.errors import BackendError
from dtscodec.linalg.factored_matrix import Factored


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device of a name, after a trial allocation on it.

    Parameters
    ----------
    device : str or torch.device
        Such as ``cuda`` or ``cuda:1``.

    Raises
    ------
    BackendError
        torch has no such device here, or it holds no data (``meta``).
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        # The first sentence of the first line; torch goes on with advice.
        reason = str(error).splitlines()[0].split(". ")[0]
        raise BackendError(f"device '{device}': expected one that torch can use here, got '{reason}'") from error
    if found.type == "meta":
        raise BackendError(f"device '{device}': expected one that holds data, got none that does")
    return found


def product(left: Tensor, right: Tensor | Factored) -> Tensor:
    """Return the product of a large matrix and a thin block of vectors, computed on the matrix's device.

    Only the thin block is copied there, and the product back. One of the two arguments may be on an accelerator.

    Parameters
    ----------
    left : float [m, k]
        The large matrix, or the block.
    right : float [k, n], or Factored
        The other one. A factored matrix is multiplied factor by factor.

    Returns
    -------
    float [m, n]
        On the CPU.
    """
    if isinstance(right, Factored):
        # Factor by factor: the large matrix is never formed.
        return product(product(left, right.left), right.right)
    device = left.device if right.device.type == "cpu" else right.device
    return (left.to(device) @ right.to(device)).cpu()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread within this context, so that a pack does not depend on the number of cores.

    The last bits of torch's SVD and sums depend on the number of threads. The setting belongs to the whole process:
    the last Python thread to leave this context restores it.
    """
    with _threads.lock:
        if not _threads.inside:
            # The first one to enter remembers the setting of the process.
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
    """The number of Python threads inside `one_thread`, and the number of torch's threads before the first entered."""

    lock: threading.Lock
    inside: int = 0
    before: int = 1


_threads = _Threads(threading.Lock())
