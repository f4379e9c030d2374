"""Work that is spread over the workers of an executor, with results in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from dtscodec.errors import BackendError, Remedy
from dtscodec.executors.dask_calls import ClusterCall, ClusterCalls, is_of_dask

RESULT = TypeVar("RESULT")

AHEAD = 32
"""Tasks that are handed out before their turn, more for a large cluster: results wait, and are small."""


def in_order(
    executor: Executor | None, function: Callable[..., RESULT], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[RESULT]:
    """Call a function with each of some arguments; without an executor, here.

    Raises
    ------
    BackendError
        A worker ended before its task did, or a cluster did.
    """
    if executor is None:
        yield from (function(*task) for task in tasks)
        return
    waiting: deque[Future[RESULT] | ClusterCall[RESULT]] = deque()
    workers: Executor | ClusterCalls = executor
    ahead = AHEAD
    if is_of_dask(executor):
        workers = ClusterCalls(executor)
        ahead = max(AHEAD, 2 * workers.count_threads())
    try:
        for task in tasks:
            waiting.append(workers.submit(function, *task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        detail = "expected a result, got none: a worker was killed, perhaps for want of memory"
        raise BackendError(f"workers: {detail}", Remedy("use fewer workers")) from error
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """An executor of so many processes of this machine; with those of a script, which must guard its main module."""
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        with _no_interrupts():
            for _ in range(count):
                pool.submit(os.getpid)  # Starts a worker, as none is idle yet.
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold signals back, here and in processes that are started: half started they would answer with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """In a worker: leave Ctrl-C to the parent, and never outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
