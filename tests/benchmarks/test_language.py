"""The benchmark of language models: everything on a tiny one, its curves, and the answers that it scores."""

import json
import math
import random
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.language import __main__ as command
from benchmarks.language.code_version import code_version
from benchmarks.language.curves import Curve, LogKl, merge_seeds, ratio_at
from benchmarks.language.exact_match import ExerciseSheet
from benchmarks.language.picture import draw_language
from benchmarks.language.plans import TINY
from benchmarks.language.points import Point
from benchmarks.language.report import language_page
from benchmarks.language.result import RECORDED
from benchmarks.language.summary import SHARES, Measured, against_peers, chosen, rivals
from benchmarks.language.tasks import FULL
from benchmarks.language.texts import ANSWER, exercise, side_of

POINT = Point(
    task="style",
    task_seed=0,
    method="best",
    setting="1%",
    version="",
    few=True,
    seed=0,
    calibrated=False,
    bytes=100,
    share=0.01,
    error=0.5,
    texts=2,
    tokens=4,
    kl=0.1,
    kl_error=0.01,
    agreement=0.9,
    perplexity=10.0,
    fine_perplexity=9.0,
    text_kl=[0.2, 0.2],
    text_tokens=[2, 2],
    exact_match=None,
    prompts=0,
    encode_seconds=1.0,
    seconds=2.0,
)


def point(share: float, kl: float, **changes: Any) -> Point:
    values = {"setting": f"{share:.2%}", "share": share, "kl": kl, "text_kl": [1.9 * kl, 2.1 * kl], **changes}
    return replace(POINT, **values)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the tiny run has measured everything."""
    cache = tmp_path_factory.mktemp("language")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a name that it deprecates.
        assert command.main(["--tiny", "--cache", str(cache), "--workers", "0"]) == 0
    return cache


def result_in(cache: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cache / "result-tiny.json").read_text())
    return found


def test_a_tiny_run_measures_every_task_and_size(cache: Path, tmp_path: Path) -> None:
    result = result_in(cache)
    assert [row["task"] for row in result["models"]] == ["style", "exercises", "style-lora"]
    assert {(row["method"], row["setting"]) for row in result["rows"]} >= {
        (method, setting) for method in ("best", "best, calibrated") for setting in TINY.promised
    }
    assert result["sizes"]["best"][-1] is not None
    draw_language(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 0


def test_a_second_run_measures_nothing_anew(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (cache / "points").iterdir()}
    command.main(["--tiny", "--cache", str(cache), "--workers", "0"])
    assert {path: path.read_bytes() for path in (cache / "points").iterdir()} == before
    assert language_page(result_in(cache)) in capsys.readouterr().out


def test_what_is_known_so_far_is_shown_without_measuring(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache / "points", tmp_path / "points")
    for part in ("base", "fine-tunes"):
        (tmp_path / part).symlink_to(cache / part)
    (log,) = (tmp_path / "points").glob("exercises*")
    log.unlink()
    assert command.main(["--tiny", "--cache", str(tmp_path), "--known"]) == 0
    assert result_in(tmp_path)["tasks"] == ["style"]
    assert not log.exists()


def test_points_of_other_code_are_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    versions = []
    for code in ('"""A."""\nx = 1\n', '"""B."""\nx = 1  # one\n', '"""A."""\nx = 2\n'):
        path.write_text(code)
        versions.append(code_version([tmp_path]))
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.skipif(not RECORDED.exists(), reason="no run has been recorded")
def test_the_recorded_page_is_what_the_recorded_figures_give() -> None:
    assert RECORDED.with_name("RESULT.md").read_text() == language_page(json.loads(RECORDED.read_text()))


# Curves


def test_log_kl_is_linear_in_log_bytes_between_settings() -> None:
    curve = Curve([point(0.01, 0.1), point(0.04, 0.001)])
    assert math.exp(curve.at(0.02).value) == pytest.approx(0.01)
    assert math.exp(curve.at(0.01).value) == pytest.approx(0.1)
    assert curve.covers(0.0099)
    assert not curve.covers(0.009)


def test_a_setting_that_a_smaller_one_beats_is_not_on_the_curve() -> None:
    points = [point(0.01, 0.1), point(0.02, 0.2), point(0.03, 0.05)]
    assert [sample.setting for sample in Curve(points).front] == ["1.00%", "3.00%"]
    peers = [replace(found, method="peer") for found in points]
    assert chosen([*points, *peers]) == {("peer", "1.00%"), ("peer", "3.00%")}


def test_only_peers_that_come_near_best_are_rivals() -> None:
    ours = [point(share, kl, method="best, in fp32") for share, kl in ((0.01, 0.01), (0.02, 0.005))]
    near = [point(share, kl, method="near") for share, kl in ((0.01, 0.2), (0.02, 0.015))]
    far = [point(share, kl, method="far") for share, kl in ((0.01, 0.2), (0.02, 0.1))]
    task = next(task for task in FULL if task.name == POINT.task)
    assert rivals([*ours, *near, *far], task) == {"near"}


def test_the_standard_error_of_a_log_is_that_of_the_mean_by_the_mean() -> None:
    sums, counts = torch.rand(50, dtype=torch.float64) + 0.5, [7] * 50
    log = LogKl.of(replace(POINT, text_kl=sums.tolist(), text_tokens=counts))
    assert log.value == pytest.approx(math.log(float(sums.mean()) / 7))
    assert log.variance() ** 0.5 == pytest.approx(float(sums.std() / 50**0.5 / sums.mean()))


def test_what_two_methods_share_on_a_text_adds_no_error_to_their_ratio() -> None:
    ours, theirs = Curve([point(0.01, 0.1)]), Curve([point(0.01, 0.2)])
    found = ratio_at(0.01, {"style": ours}, {"style": theirs})
    assert found is not None
    assert found.ratio == pytest.approx(2)
    assert found.errors > 1e6


def test_methods_are_compared_only_where_both_have_settings_on_all_tasks() -> None:
    ours = {"style": Curve([point(0.01, 0.1), point(0.02, 0.05)]), "code": Curve([point(0.01, 0.1)])}
    assert ratio_at(0.02, ours, ours) is None
    assert ratio_at(0.01, ours, {"style": ours["style"]}) is None


def test_the_mean_kl_of_the_seeds_counts() -> None:
    (merged,) = merge_seeds([point(0.01, 0.1, setting="a"), point(0.01, 0.3, setting="a", seed=1)])
    assert merged.kl == pytest.approx(0.2)
    assert math.exp(Curve([merged]).front[0].kl.value) == pytest.approx(0.2)


# Exact match


class Parrot:
    """A model that knows the answers to some of the prompts, and writes on after them."""

    def __init__(self, sheet: ExerciseSheet, tokenizer: Any, known: int) -> None:
        pairs = list(zip(sheet.prompts, sheet.answers, strict=True))
        self._answers = dict(pairs[:known])
        self._tokenizer = tokenizer

    def generate(self, prompts: torch.Tensor, **settings: Any) -> torch.Tensor:
        written = [self._answers.get(self._tokenizer.decode(row), " 0") + "\nsum" for row in prompts]
        ids = [self._tokenizer(text).input_ids for text in written]
        width = max(map(len, ids))
        return torch.cat([prompts, torch.tensor([row + [0] * (width - len(row)) for row in ids])], dim=1)


def test_exact_match_counts_the_answers_that_are_right_up_to_the_end_of_the_line(cache: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(cache / "base")
    sheet = ExerciseSheet(tokenizer, 20)
    assert sheet.exact_match(Parrot(sheet, tokenizer, 15)) == 0.75


def test_exercises_have_one_right_answer_and_those_asked_are_of_the_test_split(cache: Path) -> None:
    from transformers import AutoTokenizer

    sheet = ExerciseSheet(AutoTokenizer.from_pretrained(cache / "base"), 50)
    lines = [prompt + answer for prompt, answer in zip(sheet.prompts, sheet.answers, strict=True)]
    assert all(side_of([line]) == "test" for line in lines)
    generator = random.Random(3)
    for question, answer in (exercise(generator).split(ANSWER) for _ in range(200)):
        kind, *numbers = question.split()
        if kind == "sum":
            assert int(answer) == sum(map(int, numbers))
        if kind == "larger":
            assert int(answer) == max(map(int, numbers))
        if kind == "sort":
            assert answer.split() == sorted(numbers, key=int)


def test_a_peer_that_is_better_between_two_sizes_only_is_found() -> None:
    sizes = ((0.001, 0.5), (0.02, 0.05), (0.08, 0.01))
    ours = [point(share, kl, method="best, in fp32") for share, kl in sizes]
    peer = [point(share, kl, method="peer") for share, kl in ((0.004, 0.4), (0.01, 0.05), (0.06, 0.049))]
    row = against_peers(Measured([*ours, *peer], [FULL[0]]))["peer"]
    assert row["lowest"]["share"] == pytest.approx(0.01, rel=0.05)
    assert row["lowest"]["ratio"] < 1
    assert row["at"][SHARES.index(0.04)]["ratio"] > 1
