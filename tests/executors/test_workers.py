"""Encoding by workers: the same pack whoever does the work, and clear errors when they cannot."""

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec import EncodeConfig
from dtscodec.encoding.targets import Size
from dtscodec.errors import (
    BackendError,
    BaseMismatchError,
    ChecksumError,
    DtsError,
    EncodeError,
    FormatError,
    TruncatedError,
)
from dtscodec.executors.processes import AHEAD, in_order, processes
from tests.encoding.fine_tunes import State, transformer

SETTINGS = {
    "default": EncodeConfig(),
    "size": EncodeConfig(target=Size.parse("4%")),
    "error": EncodeConfig(target=dtscodec.MaxError(0.5)),
    "rank": EncodeConfig(target=dtscodec.Rank(4)),
    "paper": EncodeConfig(preset=dtscodec.Paper()),
}


def tied() -> State:
    """A fine-tune with a tied head, a tensor that is the base's, and one of integers."""
    fine = dict(transformer().fine)
    fine["a.tied"] = fine["embed.weight"].clone()
    fine["steps"] = torch.arange(5)
    return fine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and fine-tune as files."""
    place = tmp_path_factory.mktemp("inputs")
    save_file(transformer().base, place / "base.safetensors")
    save_file(tied(), place / "fine.safetensors")
    save_file({**tied(), "head.weight": torch.full((3, 64), float("nan"))}, place / "nan.safetensors")
    return place


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with processes(2) as executor:
        yield executor


def packed(folder: Path, out: Path, config: EncodeConfig, executor: Executor | None) -> bytes:
    base, fine = folder / "base.safetensors", folder / "fine.safetensors"
    return dtscodec.encode(base, fine, out, config, executor=executor).path.read_bytes()


@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_a_pack_is_the_same_whoever_made_it(config: EncodeConfig, folder: Path, pool: Executor, tmp_path: Path) -> None:
    here = packed(folder, tmp_path / "here", config, None)
    assert packed(folder, tmp_path / "processes", config, pool) == here
    with ThreadPoolExecutor(3) as threads:
        assert packed(folder, tmp_path / "threads", config, threads) == here


def test_threads_take_tensors_in_memory(tmp_path: Path) -> None:
    pair = transformer()
    files = []
    with ThreadPoolExecutor(2) as threads:
        for name, executor in (("here", None), ("threads", threads)):
            report = dtscodec.encode(pair.base, pair.fine, tmp_path / name, executor=executor)
            files.append(report.path.read_bytes())
    assert files[0] == files[1]


def test_processes_do_not_take_tensors_in_memory_and_say_what_to_do(pool: Executor, tmp_path: Path) -> None:
    pair = transformer()
    with pytest.raises(EncodeError, match=r"in memory.* save them"):
        dtscodec.encode(pair.base, pair.fine, tmp_path / "pack", executor=pool)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_coded_is_told_as_without_workers(folder: Path, pool: Executor, tmp_path: Path) -> None:
    base = {**transformer().base, "head.weight": torch.zeros(3, 64)}
    save_file(base, tmp_path / "base.safetensors")
    told = []
    for executor in (None, pool):
        with pytest.raises(EncodeError, match=r"head\.weight: expected finite") as error:
            dtscodec.encode(
                tmp_path / "base.safetensors", folder / "nan.safetensors", tmp_path / "pack", executor=executor
            )
        told.append(str(error.value))
    assert told[0] == told[1]
    assert [path.name for path in tmp_path.iterdir()] == ["base.safetensors"]


def test_a_worker_that_is_killed_is_one_clear_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with processes(1) as executor:
        executor.submit(os._exit, 9)
        with pytest.raises(BackendError, match="a worker was killed"):
            packed(folder, tmp_path / "pack", EncodeConfig(), executor)
    assert not list(tmp_path.iterdir())


def test_results_come_in_the_order_of_the_tasks_which_are_not_all_handed_out_at_once() -> None:
    drawn = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(3 * AHEAD):
            drawn.append(number)
            yield (number,)

    with ThreadPoolExecutor(4) as threads:
        results = in_order(threads, lambda number: number * number, tasks())
        assert next(results) == 0
        assert len(drawn) <= AHEAD + 1
        assert list(results) == [number * number for number in range(1, 3 * AHEAD)]


@pytest.mark.parametrize("kind", [FormatError, TruncatedError, ChecksumError, BaseMismatchError])
def test_refusals_reach_other_processes_whole(kind: type[FormatError]) -> None:
    error: DtsError = kind("index", "a file", "expected this, got that", "3.1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.reason, again.section) == (kind, str(error), "index", "3.1")


def test_workers_open_the_folders_of_a_directory_too(pool: Executor, tmp_path: Path) -> None:
    pair = transformer()
    for name, state in (("base", pair.base), ("fine", pair.fine)):
        (tmp_path / name / "2_Dense").mkdir(parents=True)
        save_file(state, tmp_path / name / "model.safetensors")
        save_file({"dense": state["embed.weight"].clone()}, tmp_path / name / "2_Dense/model.safetensors")
        (tmp_path / name / "modules.json").write_text('[{"path": ""}, {"path": "2_Dense"}]')
    base, fine = tmp_path / "base", tmp_path / "fine"
    files = [
        dtscodec.encode(base, fine, tmp_path / str(place), executor=executor).path.read_bytes()
        for place, executor in enumerate((None, pool))
    ]
    assert files[0] == files[1]
