"""A Dask cluster that runs already, as an executor."""

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
"""Seconds in which a scheduler must answer."""

WORKERS_WITHIN = 10.0
"""Seconds in which a scheduler must have a worker."""

VERSIONS_WITHIN = 60.0
"""Seconds within which all workers must report their versions; for that they import torch, perhaps from a slow disk."""

TALKATIVE = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application", "asyncio")
"""Loggers that Dask gives levels of their own, or that report its lost connections."""


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """An executor of the workers of a Dask cluster, which must compute with the versions of this process.

    Parameters
    ----------
    address : str
        The scheduler's, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    BackendError
        `distributed` is not installed, nobody answers, there is no worker, or one has other versions.
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
    """The package, imported on first use."""
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
            return distributed.Client(address, timeout=CONNECT_WITHIN, set_as_default=False)
        except Exception as error:  # For an address that is none, errors of any kind.
            detail = f"expected a Dask scheduler, got '{one_line(error)}'"
            remedy = Remedy("start one by 'dask scheduler', which prints its address")
            raise BackendError(f"{address}: {detail}", remedy) from error


def _check_workers(client: Any, address: str) -> None:
    """Check that there are workers, and that each of them computes with what we do."""
    try:
        client.wait_for_workers(1, timeout=WORKERS_WITHIN)
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
    """Keep Dask's log off standard error inside the block; restore its levels after it."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
