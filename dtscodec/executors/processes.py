"""Calls on the workers of an executor, with results in the order of the tasks; an executor of local processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from dtscodec.errors import BackendError, Remedy
from dtscodec.executors.dask_calls import RESULT, ClusterCall, ClusterCalls, is_dask_executor

AHEAD = 32
"""Tasks that are submitted in advance, more for a large cluster. Their results, which are small, wait in memory."""

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def in_order(
    executor: Executor | None, function: Callable[..., RESULT], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[RESULT]:
    """Yield the results of a function for many arguments, in the order of the arguments.

    Parameters
    ----------
    executor : Executor or None
        Of `processes` or `dask_cluster.cluster`; None to call the function in this thread.
    function : callable
        A function that workers can import.
    tasks : iterable of tuple
        Arguments of each call.

    Raises
    ------
    BackendError
        A worker died, or a cluster was lost.
    """
    if executor is None:
        yield from (function(*task) for task in tasks)
        return
    waiting: deque[Future[RESULT] | ClusterCall[RESULT]] = deque()
    workers: Executor | ClusterCalls = executor
    ahead = AHEAD
    if is_dask_executor(executor):
        workers = ClusterCalls(executor)
        ahead = max(AHEAD, 2 * workers.count_threads())
    try:
        for task in tasks:
            # Submit ahead, so that workers need not wait for the caller, but not so far that results pile up.
            waiting.append(workers.submit(function, *task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        detail = "expected a result, got none: a worker was killed, perhaps for want of memory"
        raise BackendError(f"workers: {detail}", Remedy("use fewer workers")) from error
    finally:
        # After an error, or when the caller stops early.
        for future in waiting:
            future.cancel()


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Yield an executor of processes on this machine. A script must guard its main module, which workers import.

    Parameters
    ----------
    count : int
        How many processes.
    """
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        # Start all workers now, while signals are blocked: they inherit the mask, and lift it in `_begin`.
        with _no_interrupts():
            for _ in range(count):
                pool.submit(os.getpid)  # This starts a worker, since none is idle yet.
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block signals in this process and in those that it starts, which would print a traceback while starting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Initialize a worker: it ignores Ctrl-C, which the parent handles, and never outlives the parent."""
    # Ignore first, then unblock: a Ctrl-C that is pending would end the worker otherwise.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # `sys.exit` would end this thread only.
        os._exit(1)
