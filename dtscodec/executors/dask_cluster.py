"""A running Dask cluster as an executor."""

import asyncio
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Any

from dtscodec.errors import BackendError, Remedy
from dtscodec.executors.versions import build, check_build
from dtscodec.messages import one_line

CONNECT_WITHIN = 10.0
"""Seconds within which a scheduler must answer."""

WORKERS_WITHIN = 10.0
"""Seconds within which a scheduler must have a worker."""

VERSIONS_WITHIN = 60.0
"""Seconds within which all workers must report their versions, for which they import torch, maybe from a slow disk."""

LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application", "asyncio")
"""Loggers to silence: those with a level set by Dask, and those that report its lost connections."""


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Yield an executor of the workers of a Dask cluster, which must have the versions of this process.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    BackendError
        `distributed` is not installed, the scheduler does not answer, or there is no worker, or one of other versions.
    """
    distributed = _distributed()
    with _quietly():
        client = _connect(distributed, address)
        try:
            _check_workers(client, address)
            yield client.get_executor(pure=False)
        finally:
            with suppress(Exception):  # It is closed in any case.
                client.close(timeout=CONNECT_WITHIN)


def _distributed() -> Any:
    """Import the package `distributed`."""
    try:
        import distributed
    except ImportError as error:
        raise BackendError(
            f"distributed: expected the package, got '{one_line(error)}'", Remedy("pip install 'dtscodec[dask]'")
        ) from error
    return distributed


def _connect(distributed: Any, address: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Versions are checked below.
        try:
            # Not as the default client, since the program may have one of its own.
            return distributed.Client(address, timeout=CONNECT_WITHIN, set_as_default=False)
        except Exception as error:  # A malformed address raises nearly any exception.
            detail = f"expected a Dask scheduler, got '{one_line(error)}'"
            remedy = Remedy("start one by 'dask scheduler', which prints its address")
            raise BackendError(f"{address}: {detail}", remedy) from error


def _check_workers(client: Any, address: str) -> None:
    """Check that there are workers, and that each has the versions of this process."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_WITHIN)
        # Exceptions are returned, so that the message can name the worker.
        builds = client.run(build, on_error="return", callback_timeout=VERSIONS_WITHIN)
    except (asyncio.TimeoutError, OSError) as error:
        detail = f"expected workers, got none that answered in time ({type(error).__name__})"
        raise BackendError(
            f"{address}: {detail}", Remedy.literal(f"start some by 'dask worker {address} --nthreads 1'")
        ) from error
    for worker, found in builds.items():
        if isinstance(found, Exception):
            detail = f"expected dtscodec {build()['dtscodec']}, got '{one_line(found)}'"
            raise BackendError(f"{worker}: {detail}", Remedy("install the client's version on every worker"))
        check_build(worker, found, build())


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence Dask's log inside the block; restore its levels afterwards."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
