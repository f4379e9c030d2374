"""Engines that run an encode: processes of the command's own, or a Dask cluster on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

DASK = "dask"
DASK_WORKERS = 2
MALLOC = {"distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25}
"""Setting that the documents recommend for a worker's environment."""


class Engine(NamedTuple):
    """Arguments to add to the command, and processes that work for it without being its children."""

    arguments: list[str]
    beside: list[int]


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """An engine by its name, a number of workers or `dask`, for as long as it is needed."""
    if name != DASK:
        yield Engine(["--workers", name], [])
        return
    import dask
    from distributed import LocalCluster

    # Scheduler and the workers' guardians live in this process: their memory is not counted, nor is starting them.
    with (
        dask.config.set(MALLOC),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=DASK_WORKERS, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
    ):
        yield Engine(["--dask", cluster.scheduler_address], [nanny.pid for nanny in cluster.workers.values()])


def title(name: str) -> str:
    """An engine's name for people.

    >>> title("1"), title("2"), title("dask")
    ('1 worker', '2 workers', 'Dask, 2 workers')
    """
    if name == DASK:
        return f"Dask, {DASK_WORKERS} workers"
    return f"{name} worker{'s' if name != '1' else ''}"


def engine_name(text: str) -> str:
    """A name as the command line has it, checked.

    Raises
    ------
    ValueError
        It is none.
    """
    if text != DASK and int(text) < 1:
        raise ValueError(f"expected {DASK} or a number of workers, got {text!r}")
    return text
