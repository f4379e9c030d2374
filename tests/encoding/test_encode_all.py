"""Packs of several fine-tunes in one directory."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.checkpoints.base import Base
from dtscodec.errors import DtsError, EncodeError, OutputError
from tests.support import check_against_spec

TASKS = ("one", "two")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    base = {"w": torch.randn(40, 40), "same": torch.randn(8)}
    save_file(base, tmp_path / "base.safetensors")
    for task in TASKS:
        save_file(base | {"w": base["w"] + 0.01 * torch.randn(40, 40)}, tmp_path / f"{task}.safetensors")
    return tmp_path


def sources(folder: Path) -> dict[str, Path]:
    return {task: folder / f"{task}.safetensors" for task in TASKS}


def calls_of(monkeypatch: pytest.MonkeyPatch, function: str) -> list[Any]:
    """First arguments of the calls of a function, as they come."""
    module, _, name = function.rpartition(".")
    original, calls = getattr(importlib.import_module(module), name), list[Any]()

    def called(first: Any, *rest: Any) -> Any:
        calls.append(first)
        return original(first, *rest)

    monkeypatch.setattr(function, called)
    return calls


def index_of(directory: Path) -> Any:
    return json.loads((directory / "dtscodec.json").read_text())


def test_the_packs_are_those_of_encode_and_the_index_lists_them(folder: Path) -> None:
    reports = dtscodec.encode_all(folder / "base.safetensors", sources(folder), folder)
    for task, report in reports.items():
        check_against_spec(report.path, folder / "base.safetensors")
        alone = dtscodec.encode(folder / "base.safetensors", sources(folder)[task], folder / f"alone-{task}", task=task)
        assert report.path.read_bytes() == alone.path.read_bytes()
        assert report.pack_id == alone.pack_id
    index = index_of(folder)
    assert index["base"] == "base.safetensors"
    assert {task: entry["id"] for task, entry in index["packs"].items()} == {t: r.pack_id for t, r in reports.items()}


def test_a_base_in_memory_is_not_listed(tmp_path: Path) -> None:
    dtscodec.encode_all({"w": torch.zeros(40, 40)}, {"one": {"w": torch.ones(40, 40)}}, tmp_path / "new")
    assert "base" not in index_of(tmp_path / "new")


def test_the_base_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = calls_of(monkeypatch, "dtscodec.checkpoints.base.leaf")
    with Base(folder / "base.safetensors") as base:
        dtscodec.encode_all(base, sources(folder), folder / "packs-of-both")
    assert len(hashed) == len(base.specs)


def test_progress_is_told_of_each_task_and_its_bytes(folder: Path) -> None:
    told: dict[str, list[int]] = {}

    @contextmanager
    def progress(task: str, total: int) -> Iterator[Any]:
        told[task] = []
        yield told[task].append
        assert sum(told[task]) == total

    seen = []
    dtscodec.encode_all(
        folder / "base.safetensors",
        sources(folder),
        folder / "out",
        progress=progress,
        on_pack=lambda task, report: seen.append((task, report.path.is_file())),
    )
    assert list(told) == list(TASKS)
    assert seen == [(task, True) for task in TASKS]


def test_packs_that_exist_are_refused_before_any_work(folder: Path) -> None:
    dtscodec.encode_all(folder / "base.safetensors", {"two": folder / "two.safetensors"}, folder)
    with pytest.raises(OutputError, match="two"):
        dtscodec.encode_all(folder / "base.safetensors", sources(folder), folder)
    assert not (folder / "packs" / "one.safetensors").exists()
    dtscodec.encode_all(folder / "base.safetensors", sources(folder), folder, force=True)


def test_an_interrupted_run_resumes_and_does_not_encode_complete_packs_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = folder / "out", folder / "out.part"
    broken = sources(folder) | {"two": folder / "missing"}
    with pytest.raises(DtsError, match="missing"), dtscodec.Journal(part) as journal:
        dtscodec.encode_all(folder / "base.safetensors", broken, out, journal=journal)
    assert list(index_of(out)["packs"]) == ["one"]
    encoded = calls_of(monkeypatch, "dtscodec.encoding.tensor_task.encode_segments")
    with dtscodec.Journal(part) as journal:
        reports = dtscodec.encode_all(folder / "base.safetensors", sources(folder), out, journal=journal)
    assert encoded == ["w"]
    assert list(index_of(out)["packs"]) == list(reports) == list(TASKS)
    assert not part.exists()


def test_another_function_may_write_the_packs(folder: Path) -> None:
    def refuse(*arguments: Any, **settings: Any) -> Any:
        raise EncodeError(settings["task"])

    with pytest.raises(EncodeError, match="one"):
        dtscodec.encode_all(folder / "base.safetensors", sources(folder), folder / "out", encode_one=refuse)
    assert not (folder / "out").exists()
