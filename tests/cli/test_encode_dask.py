"""`encode --dask`: the same packs and nothing else on standard error, whatever becomes of the cluster."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtscodec.executors import dask_cluster as cluster
from tests.cli.helpers import CODED, PACK, Cli, snapshot
from tests.cli.test_interrupts import interrupted, long_encode
from tests.fakes.dask_cluster import DaskCluster, is_busy, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask"), 1, 1) as running:
        yield running


@pytest.fixture
def client(dask: DaskCluster) -> Iterator[Any]:
    with dask.client() as looking_on:
        yield looking_on


def test_a_cluster_makes_the_same_packs(cli: Cli, dask: DaskCluster) -> None:
    cli("encode", "base", "movie", "tweets", "-o", "here", *CODED)
    cli("encode", "base", "movie", "tweets", "-o", "cluster", *CODED, "--dask", dask.address)
    assert snapshot(Path("cluster")) == snapshot(Path("here"))


def test_workers_are_processes_or_a_cluster_s(cli: Cli) -> None:
    told = cli.misused("encode", "base", "movie", "-o", "out", "--workers", "2", "--dask", "tcp://127.0.0.1:1")
    assert "not allowed with" in told


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://", "what://127.0.0.1:1"])
def test_an_address_without_a_scheduler(cli: Cli, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "CONNECT_WITHIN", 0.5)
    told = cli.fails("encode", "base", "movie", "-o", "out", "--dask", address)
    assert told.startswith(f"{address}: expected a Dask scheduler")


def test_a_cluster_without_workers(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "WORKERS_WITHIN", 0.5)
    with DaskCluster(tmp_path) as empty:
        told = cli.fails("encode", "base", "movie", "-o", "out", "--dask", empty.address)
        assert told.startswith(f"{empty.address}: expected workers")


def test_without_the_extra_it_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "dtscodec[dask]" in cli.fails("encode", "base", "movie", "-o", "out", "--dask", "tcp://127.0.0.1:1")
    cli("encode", "base", "movie", "-o", "out", "--workers", "2")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("work")
def test_a_signal_leaves_nothing_here_and_nothing_to_do_there(dask: DaskCluster, client: Any, number: int) -> None:
    def until_working(process: "subprocess.Popen[str]") -> None:
        until(lambda: process.poll() is not None or is_busy(client))

    interrupted(long_encode("--dask", dask.address), number, until_working)
    until(lambda: not is_busy(client))


@pytest.mark.usefixtures("work")
def test_a_scheduler_that_dies_is_one_line(tmp_path: Path) -> None:
    command = long_encode()
    before = snapshot(Path())
    (tmp_path / "dask").mkdir()
    with DaskCluster(tmp_path / "dask", 1) as dask, dask.client() as client:
        command += ["--dask", dask.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: process.poll() is not None or is_busy(client))
            client.close()
            os.kill(dask.scheduler.pid, signal.SIGKILL)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"dtscodec: {dask.address}: expected a result, got none: the connection")
    assert snapshot(Path()) == before


def test_an_output_that_exists_is_told_before_the_cluster_is_asked(cli: Cli) -> None:
    assert cli.fails("encode", "base", "movie", "--dask", "tcp://127.0.0.1:1").startswith(f"{PACK}: ")
