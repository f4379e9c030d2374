"""A Dask cluster of real processes on this machine, any of which may be killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from distributed import Client

from tests.support import ROOT

BEGIN = "import sys, distributed.cli.dask_{0}; {1}; sys.exit(distributed.cli.dask_{0}.main())"
OLD_VERSION = "import dtscodec.executors.versions as versions; versions.__version__ = '0.0.1'"
NO_SECOND_CHANCE = "import dask; dask.config.set({'distributed.scheduler.allowed-failures': 0})"
WITHOUT_US = "sys.modules['dtscodec'] = None"
QUIET = ["--host", "127.0.0.1", "--no-dashboard"]


class DaskCluster:
    """A scheduler and its workers; all are killed at the end.

    Parameters
    ----------
    folder : Path
        For the address and logs; also the working directory of all.
    threads : sequence of int
        Of each worker.
    before : str
        What the scheduler does before it begins.
    """

    def __init__(self, folder: Path, *threads: int, before: str = "pass") -> None:
        self._folder, self._file = folder, folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", before, ["--port", "0", "--scheduler-file", str(self._file)])
        until(self._file.exists)
        self.address: str = json.loads(self._file.read_text())["address"]
        for count in threads:
            self.add_worker(count)

    def add_worker(self, threads: int = 1, before: str = "pass") -> "subprocess.Popen[bytes]":
        """A worker without a nanny: once killed it stays away."""
        options = [self.address, "--nthreads", str(threads), "--no-nanny"]
        self.workers.append(self._start("worker", before, options))
        return self.workers[-1]

    def client(self) -> Any:
        """A client of one's own, to look on."""
        return Client(self.address, set_as_default=False)  # type: ignore[no-untyped-call]

    def _start(self, kind: str, before: str, options: list[str]) -> "subprocess.Popen[bytes]":
        code = BEGIN.format(kind, before)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        with open(self._folder / f"{kind}.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, *QUIET, *options],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> "DaskCluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def is_busy(client: Any) -> bool:
    """Whether any worker has work."""
    return any(client.processing().values())


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
