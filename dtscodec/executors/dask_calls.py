"""Calls on the workers of a Dask cluster: they travel as bytes, and end when the cluster does.

Dask's scheduler unpickles what is submitted, and a result that cannot be unpickled never arrives. So both are bytes to
Dask: the scheduler needs neither torch nor the checkpoints, and nothing waits for ever.
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

LOOK_AFTER = 1.0
"""Seconds of waiting for a result, after which the state of the cluster is checked, and again each time."""

ANSWER_WITHIN = 30.0
"""Seconds that the scheduler may take to answer, and that there may be no worker: one that was killed may come back."""

ARRIVE_WITHIN = 600.0
"""Seconds that a finished result may take to arrive."""


def is_of_dask(executor: Executor | None) -> bool:
    """Whether an executor is what `distributed.Client.get_executor` gives; imports nothing."""
    module = sys.modules.get("distributed.cfexecutor")
    return module is not None and isinstance(executor, module.ClientExecutor)


class ClusterCall(Generic[RESULT]):
    """A call that was handed out; in the manner of `concurrent.futures.Future`.

    Parameters
    ----------
    client : distributed.Client
    future : distributed.Future
        Of the pickled result.
    """

    def __init__(self, client: Any, future: Any) -> None:
        self._client, self._future = client, future
        self._done = threading.Event()
        future.add_done_callback(lambda _: self._done.set())

    def result(self) -> RESULT:
        """Return the function's result, or raise its exception.

        Raises
        ------
        BackendError
            The cluster cannot give it any more, or the scheduler has not this package.
        """
        try:
            self._wait()
            packed = self._future.result(timeout=ARRIVE_WITHIN)
        except (Exception, CancelledError, asyncio.CancelledError) as error:
            self._explain(error)
        result: RESULT = pickle.loads(packed)
        return result

    def cancel(self) -> None:
        """Let the cluster forget the call; what runs already runs to its end. Waits for nobody."""
        self._future.release()

    def _wait(self) -> None:
        """Wait for the result as long as somebody works for it."""
        seen = time.monotonic()
        while not (self._done.wait(LOOK_AFTER) or self._future.done()):
            if self._client.status != "running":
                raise ConnectionError
            if _threads(self._client):
                seen = time.monotonic()
            elif time.monotonic() - seen > ANSWER_WITHIN:
                raise _NoWorkerError

    def _explain(self, error: BaseException) -> NoReturn:
        """Raise the function's own error as it is, and Dask's in our words."""
        if self._future.status == "error" and not type(error).__module__.startswith("distributed."):
            if "deserialization of the task graph" not in str(error):
                raise error
            detail = "expected the package dtscodec on the scheduler, got none"
            raise BackendError(
                f"{_address(self._client)}: {detail}", Remedy("install there what workers have")
            ) from error
        raise _lost(self._client, error) from error


class ClusterCalls:
    """The same executor's cluster, as `ClusterCall` uses it.

    Parameters
    ----------
    executor : distributed.cfexecutor.ClientExecutor
        Its own futures report neither a lost connection nor a result that is lost on its way.
    """

    def __init__(self, executor: Any) -> None:
        self._client = executor._client
        self._options = {**executor._kwargs, "pure": False}  # Equal arguments are separate calls.
        self._build = build()

    def submit(self, function: Callable[..., RESULT], *arguments: Any) -> ClusterCall[RESULT]:
        """Hand out a call of a function that workers can import.

        Raises
        ------
        BackendError
            The client was closed.
        """
        packed = pickle.dumps((function, arguments), pickle.HIGHEST_PROTOCOL)
        try:
            return ClusterCall(self._client, self._client.submit(call, packed, self._build, **self._options))
        except Exception as error:  # Of Dask's own kinds.
            raise _lost(self._client, error) from error

    def count_threads(self) -> int:
        """Threads of all workers.

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
    """In a worker: call a function, and pickle what it returns.

    Raises
    ------
    BackendError
        The worker computes with other versions than the client.
    """
    import distributed

    check_build(distributed.get_worker().address, build(), expected)
    function, arguments = pickle.loads(packed)
    return pickle.dumps(function(*arguments), pickle.HIGHEST_PROTOCOL)


def _threads(client: Any) -> dict[str, int]:
    """Threads by worker, as the scheduler knows them now."""
    found: dict[str, int] = client.sync(client.scheduler.ncores, callback_timeout=ANSWER_WITHIN)
    return found


def _address(client: Any) -> str:
    return str(getattr(client.scheduler, "address", "the cluster"))


def _lost(client: Any, error: BaseException) -> BackendError:
    """Return Dask's failure as an error with a remedy."""
    reason, remedy = f"the connection to the scheduler was lost ({type(error).__name__})", "see that it runs"
    if type(error).__name__ == "KilledWorker":
        reason, remedy = "workers died of the same tensor one after the other", "give them more memory"
    elif isinstance(error, _NoWorkerError):
        reason, remedy = f"there was no worker for {ANSWER_WITHIN:.0f} s", "start some"
    return BackendError(
        f"{_address(client)}: expected a result, got none: {reason}", Remedy(f"{remedy} and encode again")
    )


class _NoWorkerError(Exception):
    """Nobody is left to work for a result."""
