"""Computations of the merging benchmark outside the library, and its page."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.demo import data
from benchmarks.merging import dts
from benchmarks.merging.bench import ACROSS, FOUR, MergingBench
from benchmarks.merging.merges import ABLATIONS, ARITHMETIC, BLIND, SHARED, TSV_M, at_alpha, distance_ratio
from benchmarks.merging.promises import promises
from benchmarks.merging.report import merging_page
from benchmarks.merging.rows import Row, RowLog, Rows
from tests.support import ROOT

FOLDER = ROOT / "benchmarks" / "merging"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MergingBench:
    """A bench on a base of one tensor, and fine-tunes one and three away from it."""
    made = MergingBench.__new__(MergingBench)
    tensors = {"one": torch.ones(4), "three": 3 * torch.ones(4)}
    monkeypatch.setattr(MergingBench, "encoder", {"w": torch.zeros(4)})
    monkeypatch.setattr(MergingBench, "fine", lambda self, task: {"w": tensors[task], "classifier.bias": torch.ones(2)})
    return made


def test_alpha_scales_the_merged_task_vector(bench: MergingBench) -> None:
    merged = {"w": 2 * torch.ones(4), "ids": torch.arange(3)}
    assert at_alpha(bench, merged, TSV_M, 1.5)["w"].tolist() == [3.0] * 4
    assert at_alpha(bench, merged, ARITHMETIC, 0.6)["w"].tolist() == [4.0] * 4
    assert set(at_alpha(bench, merged, TSV_M, 1.0)) == {"w"}
    assert at_alpha(bench, merged, BLIND, 1.5)["w"].tolist() == [2.0] * 4  # ESM's alpha is for matrices.


def test_distances_are_relative_to_the_pre_trained_base(bench: MergingBench) -> None:
    merged = {"w": 2 * torch.ones(4)}
    assert distance_ratio(bench, merged, "one") == 1
    assert distance_ratio(bench, merged, "three") == pytest.approx(1 / 3)


def test_models_have_their_own_heads(bench: MergingBench) -> None:
    model = bench.with_head({"w": torch.zeros(4), "classifier.bias": torch.zeros(2)}, "one")
    assert model["w"].tolist() == [0.0] * 4
    assert model["classifier.bias"].tolist() == [1.0] * 2


def test_a_log_resumes_where_it_stopped(tmp_path: Path) -> None:
    row = Row("bases", "average", "default", "movie", {"accuracy": 0.5})
    RowLog(tmp_path / "rows.jsonl").put(row)
    again = RowLog(tmp_path / "rows.jsonl")
    assert again.has("bases", "average", "default", "movie")
    assert not again.has("bases", "average", "default", "movie", "nyt")
    assert list(again) == [row]


def test_tasks_across_domains_have_their_numbers_of_classes() -> None:
    assert [data.classes(task) for task in ACROSS] == [16, 4, 2]
    assert [data.classes(task) for task in FOUR] == [2] * 4
    assert not set(ACROSS[1:]) & set(data.TASKS)


def test_every_ablation_differs_from_the_method_by_one_option() -> None:
    assert len({merge.method for merge in (*SHARED, *ABLATIONS)}) == len(SHARED) + len(ABLATIONS)
    assert all(merge.grams for merge in ABLATIONS)


def three(lost: float) -> Iterator[Row]:
    size = dts.SIZES[0]
    for task in FOUR:
        yield Row(dts.PART, "pre-trained", size, task, {"accuracy": 0.8})
    for task in dts.THREE:
        yield Row(dts.PART, dts.DIRECTORY, size, task, {"accuracy": 0.8 - lost})
    yield Row(dts.PART, dts.DIRECTORY, size, "", {"directory": 111.0, "packs": 6.0, "plain_base": 100.0})


@pytest.mark.parametrize(("lost", "words"), [(0.01, "holds (-1.00"), (0.012, "does **not** hold (-1.20")])
def test_promises_say_whether_they_hold(lost: float, words: str) -> None:
    accuracy, size = promises(Rows(three(lost)))
    assert words in accuracy
    assert size.endswith("holds (1.050 bases).")


def test_an_empty_result_makes_no_promises() -> None:
    assert promises(Rows([])) == []
    assert merging_page({}).startswith("# Merging")


def test_the_recorded_page_is_what_the_recorded_figures_give() -> None:
    result = json.loads((FOLDER / "result.json").read_text())
    assert (FOLDER / "RESULT.md").read_text() == merging_page(result)
