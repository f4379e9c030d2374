"""Outputs of the fine-tune that are stored in a file between the epochs of a fit."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from dtscodec.calibration.fit import fit
from dtscodec.calibration.model_outputs import ModelOutputs
from dtscodec.calibration.stored_outputs import StoredOutputs
from dtscodec.calibration.teacher import Teacher
from tests.evaluation.helpers import Made

MODULE = "dtscodec.calibration.stored_outputs"


def outputs(dtype: torch.dtype = torch.float32) -> ModelOutputs:
    return ModelOutputs(torch.randn(3, 7).to(dtype), (torch.randn(2, 4, 5), torch.randn(2, 4, 5).to(dtype).mT))


def same(one: ModelOutputs, other: ModelOutputs) -> bool:
    pairs = zip((one.predictions, *one.hidden_states), (other.predictions, *other.hidden_states), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_outputs_come_back_to_the_bit(dtype: torch.dtype) -> None:
    batches = {name: [outputs(dtype), outputs(dtype)] for name in "ab"}
    with StoredOutputs() as stored:
        for name, parts in batches.items():
            stored.add(name, parts)
        for name, parts in batches.items():
            found = stored.get(name)
            assert found is not None
            assert all(same(*pair) for pair in zip(found, parts, strict=True))
        assert stored.get("c") is None


def test_what_exceeds_the_limit_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [outputs()]
    monkeypatch.setattr(f"{MODULE}.LIMIT", 500)
    with StoredOutputs() as stored:
        stored.add("a", parts)
        stored.add("b", parts)
        assert stored.get("a") is not None
        assert stored.get("b") is None


class FullDisk(io.BytesIO):
    """A file that takes some bytes only."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 500:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_full_disk_does_not_stop_a_fit(
    language_model: Made, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> str:
        out = tmp_path / name
        return fit(language_model.pack, language_model.fine, out, language_model.base, samples=texts, steps=5).pack_id

    stored = run("stored")
    monkeypatch.setattr(f"{MODULE}.tempfile.TemporaryFile", lambda **options: FullDisk())
    assert run("full") == stored


def test_the_fine_tune_runs_once_on_each_batch_and_the_pack_is_that_of_one_that_runs_anew(
    language_model: Made, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    run_model = Teacher._run

    def counted(self: Teacher, *arguments: Any) -> ModelOutputs:
        runs.append(1)
        return run_model(self, *arguments)

    monkeypatch.setattr(Teacher, "_run", counted)

    def run(name: str) -> tuple[str, int]:
        runs.clear()
        out = tmp_path / name
        made = language_model
        report = fit(made.pack, made.fine, out, made.base, samples=texts, steps=6, batch_tokens=60)
        return report.pack_id, len(runs)

    stored, few = run("stored")
    monkeypatch.setattr(StoredOutputs, "get", lambda self, key: None)
    anew, many = run("anew")
    assert stored == anew
    assert few < many / 2
