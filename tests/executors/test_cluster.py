"""Encoding by the workers of a Dask cluster: the same pack, whatever happens to a worker, and clear errors."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec import EncodeConfig
from dtscodec.errors import BackendError, CheckpointError, EncodeError
from dtscodec.executors import dask_calls as cluster_calls
from dtscodec.executors.dask_cluster import cluster
from dtscodec.executors.processes import in_order
from tests.encoding.fine_tunes import transformer
from tests.executors.test_workers import SETTINGS, packed, tied
from tests.fakes.dask_cluster import NO_SECOND_CHANCE, OLD_VERSION, WITHOUT_US, DaskCluster, is_busy, until

SOON = 20
"""Seconds in which an encode must have noticed that its cluster is gone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and fine-tune as files: small ones, and such as take two workers some seconds."""
    place = tmp_path_factory.mktemp("inputs")
    save_file(transformer().base, place / "base.safetensors")
    save_file(tied(), place / "fine.safetensors")
    (place / "long").mkdir()
    generator = torch.Generator().manual_seed(3)
    base = {f"layer.{i}.weight": torch.randn(320, 320, generator=generator) for i in range(40)}
    save_file(base, place / "long/base.safetensors")
    fine = {name: tensor + torch.randn(320, 320, generator=generator) for name, tensor in base.items()}
    save_file(fine, place / "long/fine.safetensors")
    return place


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two workers, of one thread and of two."""
    with DaskCluster(tmp_path_factory.mktemp("dask"), 1, 2) as running:
        with running.client() as client:
            client.wait_for_workers(2, timeout=60)
        yield running


@pytest.fixture
def pool(dask: DaskCluster) -> Iterator[Executor]:
    with cluster(dask.address) as executor:
        yield executor


def long_encode(folder: Path, out: Path, executor: Executor | None, midway: Callable[[], object] = lambda: 0) -> bytes:
    """Encode what takes some seconds, and do something in the middle of it."""
    told = []

    def progress(_: int) -> None:
        told.append(time.monotonic())
        if len(told) == 10:
            midway()

    base, fine = folder / "long/base.safetensors", folder / "long/fine.safetensors"
    return dtscodec.encode(base, fine, out, progress=progress, executor=executor).path.read_bytes()


@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_a_pack_is_the_same_when_a_cluster_makes_it(
    config: EncodeConfig, folder: Path, pool: Executor, tmp_path: Path
) -> None:
    here = packed(folder, tmp_path / "here", config, None)
    assert packed(folder, tmp_path / "cluster", config, pool) == here


def test_any_executor_of_a_client_will_do(dask: DaskCluster, folder: Path, tmp_path: Path) -> None:
    here = packed(folder, tmp_path / "here", EncodeConfig(), None)
    with dask.client() as client:
        assert packed(folder, tmp_path / "cluster", EncodeConfig(), client.get_executor()) == here


def test_workers_open_what_is_named_relative_to_another_directory(
    pool: Executor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = packed(folder, tmp_path / "here", EncodeConfig(), None)
    monkeypatch.chdir(folder)
    assert packed(Path(), tmp_path / "cluster", EncodeConfig(), pool) == here


def test_a_worker_opens_files_afresh_for_each_encode(pool: Executor, folder: Path, tmp_path: Path) -> None:
    save_file(transformer().base, tmp_path / "base.safetensors")
    for seed in (0, 1):
        save_file(transformer(seed=seed).fine, tmp_path / "fine.safetensors")
        here = packed(tmp_path, tmp_path / f"here{seed}", EncodeConfig(), None)
        assert packed(tmp_path, tmp_path / f"cluster{seed}", EncodeConfig(), pool) == here


def test_a_worker_that_does_not_find_the_files_says_what_to_do(
    pool: Executor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    own = Path("/proc/self/cwd")  # Of each process another directory.
    with pytest.raises(CheckpointError, match=r"got nothing of that name.*workers read the same paths"):
        packed(own, tmp_path / "pack", EncodeConfig(), pool)
    assert not list(tmp_path.iterdir())


def test_clusters_do_not_take_tensors_in_memory(pool: Executor, tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"in memory.* save them"):
        dtscodec.encode(transformer().base, transformer().fine, tmp_path / "pack", executor=pool)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_work_is_told_as_it_is(pool: Executor) -> None:
    with pytest.raises(FileNotFoundError):
        list(in_order(pool, os.stat, [("/nothing/of/that/name",)]))


def test_a_result_that_cannot_travel_is_an_error_and_no_waiting_for_ever(pool: Executor) -> None:
    with pytest.raises(TypeError, match="pickle"):
        list(in_order(pool, threading.Lock, [()]))


def test_a_task_that_kills_its_workers_is_one_clear_error(tmp_path: Path) -> None:
    told = pytest.raises(BackendError, match="workers died of the same tensor")
    with DaskCluster(tmp_path, 1, before=NO_SECOND_CHANCE) as dask, cluster(dask.address) as executor, told:
        list(in_order(executor, os._exit, [(9,)]))


def test_when_a_worker_is_killed_at_work_another_one_does_it(dask: DaskCluster, folder: Path, tmp_path: Path) -> None:
    here = long_encode(folder, tmp_path / "here", None)
    with dask.client() as client:
        before = set(client.nthreads())
        victim = dask.add_worker()
        until(lambda: len(client.nthreads()) > len(before))
        (address,) = set(client.nthreads()) - before

        def kill() -> None:
            until(lambda: client.processing()[address])
            victim.kill()
            victim.wait()

        with cluster(dask.address) as executor, ThreadPoolExecutor(1) as aside:
            killed = aside.submit(kill)
            assert long_encode(folder, tmp_path / "cluster", executor) == here
            assert killed.done()
        assert set(client.nthreads()) == before


def test_what_is_not_needed_any_more_is_taken_back(dask: DaskCluster, folder: Path, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with dask.client() as client:
        own = client.get_executor()
        with pytest.raises(KeyboardInterrupt):
            long_encode(folder, tmp_path / "pack", own, stop)
        until(lambda: not is_busy(client))
    assert not list(tmp_path.iterdir())


def test_a_worker_of_another_version_is_refused_at_the_start_and_in_the_middle(folder: Path, tmp_path: Path) -> None:
    refused = r"tcp://\S+: expected dtscodec \S+, got 0\.0\.1; install"
    (tmp_path / "dask").mkdir()
    with DaskCluster(tmp_path / "dask") as dask, dask.client() as client:
        dask.add_worker(before=OLD_VERSION)
        with pytest.raises(BackendError, match=refused), cluster(dask.address):
            pass
        with pytest.raises(BackendError, match=refused):
            packed(folder, tmp_path / "pack", EncodeConfig(), client.get_executor())
    assert not (tmp_path / "pack").exists()


def test_a_scheduler_without_this_package_is_refused(folder: Path, tmp_path: Path) -> None:
    refused = pytest.raises(BackendError, match="expected the package dtscodec on the scheduler")
    with DaskCluster(tmp_path, 1, before=WITHOUT_US) as dask, cluster(dask.address) as executor, refused:
        packed(folder, tmp_path / "pack", EncodeConfig(), executor)


@pytest.mark.parametrize("lost", ["scheduler", "workers"])
def test_a_cluster_that_dies_is_one_clear_error_within_seconds(
    lost: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_calls, "ANSWER_WITHIN", 2.0)
    (tmp_path / "dask").mkdir()
    with DaskCluster(tmp_path / "dask", 1) as dask, cluster(dask.address) as executor:
        killed = []

        def kill() -> None:
            (dask.scheduler if lost == "scheduler" else dask.workers[0]).kill()
            killed.append(time.monotonic())

        reason = {"scheduler": "the connection to the scheduler was lost", "workers": "there was no worker for 2 s"}
        with pytest.raises(BackendError, match=reason[lost]):
            long_encode(folder, tmp_path / "pack", executor, kill)
        assert time.monotonic() - killed[0] < SOON
    assert [path.name for path in tmp_path.iterdir()] == ["dask"]
