"""The benchmark of speed: what it computes from times, what it writes, and what it sees of a command."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.common.process_usage import run_measured
from benchmarks.common.run_log import RunLog
from benchmarks.common.timing import least_time
from benchmarks.speed.engines import engine_name
from benchmarks.speed.factors import matrices_of, total
from benchmarks.speed.power_law import exponent, spread
from benchmarks.speed.report import speed_page
from benchmarks.speed.results import engine_rows, merged
from benchmarks.speed.synthetic_checkpoints import SHAPES, Shape, write_family
from dtscodec.checkpoints.open import open_checkpoint
from tests.support import ROOT

TINY = Shape(32, 48, 2)
RUN = {
    "date": "2026-01-02",
    "machine": {"processor": "P", "cores": 2, "system": "S"},
    "versions": {"torch": "T", "python": "3"},
}


def model_run(parameters: float, engines: dict[str, tuple[float, str]], date: str = "2026-01-02") -> dict[str, Any]:
    size = {"parameters": parameters, "checkpoint": 1, "pack": 1, "peak": 1, "read": 1, "written": 1, "fetched": 0}
    rows = [
        {**size, "engine": engine, "seconds": seconds, "pack_id": "0" * 64, "sha256": digest}
        for engine, (seconds, digest) in engines.items()
    ]
    return {**RUN, "date": date, "rows": rows}


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(power: float) -> None:
    sizes = [1e8, 5e8, 1e9, 7e9]
    assert exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_the_spread_of_equal_values_is_one() -> None:
    assert spread([0.2, 0.2]) == 1


def test_short_work_is_repeated_until_it_has_taken_long_enough() -> None:
    calls = itertools.count(1)
    result, seconds = least_time(lambda: next(calls), repeats=2, enough=0.02)
    assert result == next(calls) - 1 > 2
    assert 0 < seconds < 0.02


@pytest.mark.parametrize("name", SHAPES)
def test_matrices_are_counted_as_often_as_a_model_has_them(name: str) -> None:
    counted = sum(rows * columns * count for (rows, columns), count in matrices_of(SHAPES[name]).items())
    vectors = sum(math.prod(size) for size in SHAPES[name].tensors().values() if len(size) == 1)
    assert counted + vectors == SHAPES[name].parameters()


def test_totals_weigh_by_the_count() -> None:
    matrix = {"shape": [2, 3], "rank": 5, "seconds": 1.0, "seconds_fixed": 2.0}
    found = total([{**matrix, "count": 1}, {**matrix, "count": 3}])
    assert found == {"parameters": 24, "work": 120, "seconds": 4.0, "seconds_fixed": 8.0}


def test_a_run_replaces_only_its_own_parts_and_models() -> None:
    first = merged({}, {"models": {"7": model_run(7e9, {"1": (1, "a")})}, "many": {"old": True}})
    both = merged(first, {"models": {"0.5": model_run(5e8, {"1": (2, "b")})}})
    assert list(both["models"]) == ["0.5", "7"]
    assert both["many"] == {"old": True}
    assert [row["seconds"] for row in engine_rows(both, "1")] == [2, 1]


def test_tables_show_exponents_of_growth_and_whether_packs_are_identical() -> None:
    models = {
        "0.5": model_run(5e8, {"1": (100, "a"), "2": (60, "a")}),
        "1": model_run(1e9, {"1": (200, "a"), "dask": (120, "b")}, date="2026-01-01"),
    }
    shown = speed_page({"models": models})
    assert "power 1.00" in shown
    assert "| 0.50 B | 0.60 | - | `0000000000000000` | the same on all engines |" in shown
    assert "NOT THE SAME" in shown
    assert "1 B: on 2026-01-01" in shown
    assert "0.5 B: on" not in shown


@pytest.mark.parametrize("name", ["0", "-1", "ray"])
def test_unknown_engines_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected|invalid"):
        engine_name(name)


def test_the_log_is_appended_to(tmp_path: Path) -> None:
    for title in ("first", "second"):
        RunLog(tmp_path / "run.log", title).say("a line")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [lines[0], lines[2]] == ["# first", "# second"]
    assert lines[1].endswith(" s  a line")


def test_fine_tunes_differ_in_their_deltas_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.speed.synthetic_checkpoints.VOCABULARY", 64)
    write_family(tmp_path, TINY, {"fine": "", "same": "", "other": "other "})
    name = "model.embed_tokens.weight"
    read = {}
    for kind in ("base", "fine", "same", "other"):
        with open_checkpoint(tmp_path / kind) as checkpoint:
            read[kind] = torch.from_numpy(checkpoint.read(name))
    assert torch.equal(read["fine"], read["same"])
    assert len({bytes(data.numpy()) for data in read.values()}) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_bytes_that_children_move_are_counted_once(tmp_path: Path) -> None:
    # The child writes, the grandchild of a shell reads: both have ended when the command does.
    (tmp_path / "moves.py").write_text(
        "import subprocess\nsubprocess.run('head -c 30000000 /dev/zero | cat > /dev/null', shell=True)\n"
    )
    moved = run_measured([], tmp_path, module="moves").moved
    assert 60_000_000 <= moved.read < 70_000_000
    assert 60_000_000 <= moved.written < 70_000_000


@pytest.mark.parametrize(("mode", "hashed"), [("count", True), ("replace", False)])
def test_base_tensors_are_hashed_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, hashed: bool
) -> None:
    monkeypatch.setattr("benchmarks.speed.synthetic_checkpoints.VOCABULARY", 64)
    write_family(tmp_path, TINY, {"a": "a ", "b": "b "})
    driver = [sys.executable, "-m", "benchmarks.speed.hashing", mode, str(tmp_path / "counts.json")]
    command = ["encode", *(str(tmp_path / kind) for kind in ("base", "a", "b")), "-o", str(tmp_path / "packs")]
    subprocess.run([*driver, *command], check=True, cwd=ROOT, stdout=subprocess.PIPE)
    counts = json.loads((tmp_path / "counts.json").read_text())
    tensors = len(TINY.tensors())
    assert counts["hashed"] == (tensors if hashed else 0)
    assert counts["distinct"] == (tensors if hashed else 1)


def test_the_recorded_page_is_what_the_recorded_figures_give() -> None:
    folder = ROOT / "benchmarks" / "speed"
    result = json.loads((folder / "result.json").read_text())
    assert (folder / "RESULT.md").read_text() == speed_page(result)
