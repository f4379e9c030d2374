"""Sums and decompositions on one thread, so that their last bits do not depend on the machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


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
