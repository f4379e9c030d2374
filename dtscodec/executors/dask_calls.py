"""Calls on the workers of a Dask cluster, which fail when the cluster is lost instead of waiting forever.

Arguments and results are pickled here, so that they are plain bytes to Dask. Its scheduler unpickles arguments, for
which it would need torch and the checkpoints, and a result that cannot be unpickled would never arrive.
"""

import asyncio
import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor
from typing import Any, Generic, NoReturn, TypeVar

from dtscodec.errors import BackendError, Remedy
from dtscodec.executors.versions import Build, build, check_build

RESULT = TypeVar("RESULT")

CHECK_EVERY = 1.0
"""Seconds between checks of the cluster while a result is awaited."""

ANSWER_WITHIN = 30.0
"""Seconds that the scheduler may take to answer, or be without a worker: one that was killed may be restarted."""

ARRIVE_WITHIN = 600.0
"""Seconds that a finished result may take to be transferred."""


def is_dask_executor(executor: Executor | None) -> bool:
    """Return whether an executor is one of `distributed.Client.get_executor`, without importing that package."""
    module = sys.modules.get("distributed.cfexecutor")
    return module is not None and isinstance(executor, module.ClientExecutor)


class ClusterCall(Generic[RESULT]):
    """A submitted call, with methods like those of `concurrent.futures.Future`.

    Parameters
    ----------
    client : distributed.Client
        The connection to the cluster.
    future : distributed.Future
        The pickled result.
    """

    def __init__(self, client: Any, future: Any) -> None:
        self._client, self._future = client, future
        self._done = threading.Event()
        # An event of our own, so that `_wait` can check on the cluster in between.
        future.add_done_callback(lambda _: self._done.set())

    def result(self) -> RESULT:
        """Return the function's result, or raise its exception.

        Raises
        ------
        BackendError
            The cluster was lost, or the scheduler lacks this package.
        """
        try:
            self._wait()
            # It is done, but its bytes must still be transferred.
            packed = self._future.result(timeout=ARRIVE_WITHIN)
        except (Exception, CancelledError, asyncio.CancelledError) as error:
            # asyncio's CancelledError is no Exception.
            self._explain(error)
        result: RESULT = pickle.loads(packed)
        return result

    def cancel(self) -> None:
        """Cancel the call without waiting; if it runs already, it runs to its end."""
        self._future.release()

    def _wait(self) -> None:
        """Wait for the result as long as the cluster has workers."""
        had_workers = time.monotonic()
        while not (self._done.wait(CHECK_EVERY) or self._future.done()):
            if self._client.status != "running":
                raise ConnectionError
            # This also fails if the scheduler does not answer in time.
            if _threads(self._client):
                had_workers = time.monotonic()
            elif time.monotonic() - had_workers > ANSWER_WITHIN:
                raise _NoWorkerError

    def _explain(self, error: BaseException) -> NoReturn:
        """Raise the function's own exception unchanged, and one of Dask as a BackendError with a remedy."""
        # Exceptions of Dask's own classes are about workers or the connection, not from the function.
        if self._future.status == "error" and not type(error).__module__.startswith("distributed."):
            # The scheduler unpickles the reference to `call`, for which it needs this package.
            if "deserialization of the task graph" not in str(error):
                raise error
            detail = "expected the package dtscodec on the scheduler, got none"
            raise BackendError(
                f"{_address(self._client)}: {detail}", Remedy("install there what workers have")
            ) from error
        raise _lost(self._client, error) from error


class ClusterCalls:
    """Submits calls to the cluster of a Dask executor; used in place of the executor's own `submit`.

    Parameters
    ----------
    executor : distributed.cfexecutor.ClientExecutor
        The executor. Its own futures report neither a lost connection nor a result that is lost in transfer.
    """

    def __init__(self, executor: Any) -> None:
        self._client = executor._client
        self._options = {**executor._kwargs, "pure": False}  # Equal arguments are separate calls.
        self._build = build()

    def submit(self, function: Callable[..., RESULT], *arguments: Any) -> ClusterCall[RESULT]:
        """Submit a call of a function that workers can import.

        Parameters
        ----------
        function : callable
            The function.
        *arguments : Any
            Its arguments, which can be pickled.

        Raises
        ------
        BackendError
            The client was closed.
        """
        packed = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        try:
            return ClusterCall(self._client, self._client.submit(call, packed, self._build, **self._options))
        except Exception as error:  # One of Dask's own classes.
            raise _lost(self._client, error) from error

    def count_threads(self) -> int:
        """Return the number of threads of all workers.

        Raises
        ------
        BackendError
            The scheduler does not answer.
        """
        try:
            return sum(_threads(self._client).values())
        except Exception as error:
            raise _lost(self._client, error) from error


def call(packed: bytes, expected: Build) -> bytes:
    """Call a pickled function in a worker, and return its pickled result.

    Parameters
    ----------
    packed : bytes
        The pickled function and its arguments.
    expected : dict
        Versions of the client.

    Raises
    ------
    BackendError
        The worker has other versions than the client.
    """
    import distributed

    # On every call, since workers may join at any time.
    check_build(distributed.get_worker().address, build(), expected)
    function, arguments = pickle.loads(packed)
    return pickle.dumps(function(*arguments), pickle.HIGHEST_PROTOCOL)


def _threads(client: Any) -> dict[str, int]:
    """Return the number of threads of each worker that the scheduler knows now."""
    found: dict[str, int] = client.sync(client.scheduler.ncores, callback_timeout=ANSWER_WITHIN)
    return found


def _address(client: Any) -> str:
    return str(getattr(client.scheduler, "address", "the cluster"))


def _lost(client: Any, error: BaseException) -> BackendError:
    """Return a failure of Dask as an error with a remedy."""
    reason, remedy = f"the connection to the scheduler was lost ({type(error).__name__})", "see that it runs"
    if type(error).__name__ == "KilledWorker":
        reason, remedy = "workers died of the same tensor one after the other", "give them more memory"
    elif isinstance(error, _NoWorkerError):
        reason, remedy = f"there was no worker for {ANSWER_WITHIN:.0f} s", "start some"
    return BackendError(
        f"{_address(client)}: expected a result, got none: {reason}", Remedy(f"{remedy} and encode again")
    )


class _NoWorkerError(Exception):
    """The cluster has no workers any more."""
