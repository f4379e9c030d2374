"""benchmarks.exact: everything on a tiny model, without the packages of peers; layouts, equality and training runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.exact import __main__ as command
from benchmarks.exact import bench, training_run
from benchmarks.exact.bars import bars
from benchmarks.exact.dts import NO_CODES, SEARCHED
from benchmarks.exact.equality import FILE, TENSORS, sha256, what_is_equal
from benchmarks.exact.measure import Row
from benchmarks.exact.pair import Pair
from benchmarks.exact.pairs import DEMO
from benchmarks.exact.peers.packages import requirements
from benchmarks.exact.peers.xor_planes import XorPlanes
from benchmarks.exact.plans import STEPS, TINY
from benchmarks.exact.report import exact_page
from benchmarks.exact.safetensors_layout import header_of
from benchmarks.exact.schemes import FAST
from benchmarks.exact.series_worker import SeriesRow
from benchmarks.exact.speed_worker import (
    CODED_DECODE,
    DECODE,
    ENCODE,
    FAST_DECODE,
    FAST_ENCODE,
    LOSSY_DECODE,
    SpeedRow,
)
from benchmarks.exact.training_run import TrainingRun, saved_files, train
from benchmarks.language.finetune import take_step
from benchmarks.language.tasks import FULL
from benchmarks.language.tiny import fill_cache

RECORDED = Path(command.__file__).with_name("result.json")
ROW = Row(
    pair="demo bf16",
    scheme=SEARCHED.name,
    setting="",
    raw=1000,
    weights=500,
    largest=100,
    bytes=120,
    encode=2.0,
    decode=1.0,
    encode_memory=10_000_000,
    decode_memory=10_000_000,
    lossy_decode=0.5,
    equal=FILE,
)


# The whole command


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a tiny run that has measured everything."""
    language, cache = (tmp_path_factory.mktemp(name) for name in ("language", "exact"))
    fill_cache(language)
    arguments = ["--tiny", "--language-cache", str(language), "--cache", str(cache)]
    with pytest.MonkeyPatch.context() as patch:
        missing = {name: "not asked for" for name in requirements()}
        patch.setattr(bench, "install_peers", lambda cache: (cache, missing))
        assert command.main(arguments) == 0
    return arguments


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "install_peers", lambda cache: (cache, {}))


def result_in(arguments: list[str]) -> dict[str, Any]:
    (path,) = Path(arguments[-1]).glob("tiny-*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_a_tiny_run_measures_every_scheme_and_store(arguments: list[str]) -> None:
    result = result_in(arguments)
    assert {row["scheme"] for row in result["rows"]} >= {NO_CODES.name, SEARCHED.name, FAST.name}
    assert {row["run"] for row in result["series"]} == {run.name for run in TINY.runs}
    assert [point["size"] for point in result["curve"]] == list(TINY.sizes)
    assert {row["equal"] for row in (*result["rows"], *result["series"])} == {FILE}
    assert all(len(row["sizes"]) == 4 for row in result["series"])
    assert len(result["bars"]) == 8


@pytest.mark.slow
@pytest.mark.usefixtures("no_packages")
def test_what_is_known_is_printed_without_measuring(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = result_in(arguments)
    assert command.main([*arguments[:1], "--report", *arguments[1:]]) == 0
    assert result_in(arguments) == {**before, "missing": {}}
    assert exact_page(result_in(arguments)) in capsys.readouterr().out


@pytest.mark.skipif(not RECORDED.exists(), reason="no run has been recorded")
def test_the_recorded_page_is_what_the_recorded_figures_give() -> None:
    assert RECORDED.with_name("RESULT.md").read_text() == exact_page(json.loads(RECORDED.read_text()))


# Bars


def test_bars_compare_with_the_best_peer() -> None:
    rows = [
        ROW,
        replace(ROW, scheme=FAST.name, bytes=200, encode=0.5, decode=0.5),
        replace(ROW, scheme=XorPlanes(19).name, bytes=160),
        replace(ROW, scheme=NO_CODES.name, bytes=150, encode=1.4, decode=2.0),
    ]
    step = SeriesRow(STEPS, "dtscodec series", "", 1000, 500, [10, 20], 1.0, 1.0, [1], FILE)
    speed = SpeedRow("demo bf16", {**dict.fromkeys((DECODE, FAST_ENCODE, LOSSY_DECODE), 1.0), ENCODE: 2.9})
    speed.seconds.update({FAST_DECODE: 0.3, CODED_DECODE: 1.9})
    found = {bar.text.partition(":")[0]: bar for bar in bars(rows, [speed], [step], [])}
    assert found["demo bf16"].measured.startswith("0.750")
    assert not found["demo bf16"].holds
    assert found["encode without codes"].holds
    assert not found["decode without codes"].holds
    assert not found["steps at a learning rate of 1e-6"].holds
    assert found["memory"].holds
    assert found["decode with codes"].holds
    assert "demo fp32" not in found


# Pairs and equality


def test_a_base_is_laid_out_as_its_fine_tune(tmp_path: Path) -> None:
    base, fine = tmp_path / "base.safetensors", tmp_path / "fine.safetensors"
    save_file({"w": torch.full((3, 5), 2.0), "other": torch.ones(7)}, base)
    save_file({"head": torch.ones(4), "bert.w": torch.zeros(3, 5), "b": torch.ones(9)}, fine)
    pair = Pair.of("demo bf16", base, fine, tmp_path / "pairs")
    state = load_file(pair.laid_out)
    assert header_of(pair.laid_out) == header_of(fine)
    assert torch.equal(state["bert.w"], torch.full((3, 5), 2.0))
    assert not state["head"].any()
    assert list(DEMO) == ["demo fp32", "demo bf16"]


def test_planes_give_back_files_of_all_widths(tmp_path: Path) -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.int8, torch.bool)
    states = [
        {str(dtype): torch.randn(3, 7, generator=torch.Generator().manual_seed(seed)).to(dtype) for dtype in dtypes}
        for seed in (0, 1)
    ]
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "fine")]
    for state, path in zip(states, files, strict=True):
        save_file({**state, "empty": torch.empty(0, 4)}, path)
    pair, out = Pair.of("p", files[0], files[1], tmp_path), tmp_path / "out.safetensors"
    XorPlanes(1).encode(pair, tmp_path, tmp_path)
    XorPlanes(1).decode(pair, tmp_path, tmp_path, out)
    assert what_is_equal(files[1], out) == FILE


@pytest.mark.parametrize(
    ("other", "equal"),
    [([0.0, float("nan")], TENSORS), ([-0.0, float("nan")], None), ([0.0, 1.0], None)],
)
def test_equality_is_by_bits(other: list[float], equal: str | None, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    save_file({"w": torch.tensor([0.0, float("nan")])}, one)
    save_file({"w": torch.tensor(other)}, two, {"header": "another"})
    assert what_is_equal(one, two) == equal


# Training runs


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tiny language model."""
    cache = tmp_path_factory.mktemp("language")
    fill_cache(cache)
    return cache


def digests(run: TrainingRun, cache: Path, folder: Path) -> list[str]:
    folder.mkdir()
    return [sha256(path) for path in saved_files(run, cache, folder)]


def test_a_run_that_was_interrupted_goes_on(language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = (
        TrainingRun("run", replace(FULL[0], name=name, rate=1e-3, steps=14), every=2) for name in ("whole", "stopped")
    )
    expected = digests(whole, language, tmp_path / "whole")
    steps = iter(range(13))

    def stop(*arguments: Any) -> float:
        next(steps)
        return take_step(*arguments)

    monkeypatch.setattr(training_run, "take_step", stop)
    with pytest.raises(StopIteration):
        train(stopped, language)
    assert (stopped.directory(language) / "state.pt").exists()
    steps = iter(range(4))  # From the state of the fifth save, at step 10.
    assert digests(stopped, language, tmp_path / "stopped") == expected
    assert len(set(expected)) == stopped.saves == 7
    assert {path.suffix for path in stopped.directory(language).iterdir()} == {".planes"}
