"""Fits: the decoded model's outputs come closer to the fine-tune's, and only streams change."""

import math
import re
from collections import Counter
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dtscodec
from dtscodec.calibration.fit import FitReport, fit
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.calibration.teacher import Teacher
from dtscodec.errors import CheckpointError, NothingToFitError, OutputError, SamplesError
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.format.blocks import LowRank, Values
from tests.evaluation.helpers import Made, broken
from tests.support import check_against_spec, make_pack


def fitted(made: Made, texts: Path, out: Path, **options: Any) -> FitReport:
    return fit(made.pack, made.fine, out, made.base, samples=texts, **{"steps": 30, **options})


@pytest.fixture
def coarse(classifier: Made, tmp_path: Path) -> Made:
    """A pack of fewer components than the deltas have."""
    make_pack(classifier.base, classifier.fine, tmp_path / "coarse", target=dtscodec.Rank(1))
    return Made(classifier.base, classifier.fine, tmp_path / "coarse")


@pytest.mark.parametrize("kind", ["classifier", "language_model"])
def test_the_decoded_model_comes_closer_to_the_fine_tune(
    kind: str, request: pytest.FixtureRequest, texts: Path, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(kind)
    report = fitted(made, texts, tmp_path / "fitted")
    assert report.after.total < report.before.total
    assert report.after.kl < 0.9 * report.before.kl
    ours = dtscodec.compare_behaviour(report.path, made.fine, made.base, samples=texts)
    assert ours.kl == pytest.approx(report.after.kl, rel=1e-3, abs=1e-7)
    check_against_spec(report.path, made.base)


@pytest.mark.parametrize("codes", [False, True])
def test_codes_change_only_if_they_are_fitted_and_norms_are_those_of_the_decoded_deltas(
    coarse: Made, texts: Path, tmp_path: Path, codes: bool
) -> None:
    report = fitted(coarse, texts, tmp_path / "fitted", codes=codes)
    changed: dict[type[Any], int] = Counter()
    recoded = 0
    with dtscodec.open(coarse.pack) as before, dtscodec.open(report.path) as after:
        assert before.index == after.index
        assert report.pack_id == after.id
        assert after.summary.encoder == f"{before.summary.encoder} distilled"
        for entry in before.index.tensors:
            pairs = zip(before.reader.blocks(entry.name), after.reader.blocks(entry.name), strict=True)
            for (_, block, old), (_, _, new) in pairs:
                assert (old.bitmaps, old.raw) == (new.bitmaps, new.raw)
                if not isinstance(block, Values):
                    recoded += old.bands != new.bands
                if isinstance(block, LowRank):
                    norm = float(np.linalg.norm(after.delta(entry.name).astype(np.float64)))
                    assert float(new.numbers[0]) == pytest.approx(norm, rel=4e-3)
                changed[type(block)] += not np.array_equal(old.numbers, new.numbers)
    assert changed[LowRank]
    assert changed[Values]
    assert bool(recoded) == codes
    assert report.pack_bytes == report.path.stat().st_size


def test_the_same_texts_give_the_same_bytes(classifier: Made, texts: Path, tmp_path: Path) -> None:
    one, other = (fitted(classifier, texts, tmp_path / name, steps=4) for name in ("one", "other"))
    assert one.pack_id == other.pack_id


def test_of_an_exact_pack_the_front_is_fitted(classifier: Made, texts: Path, tmp_path: Path) -> None:
    exact = dtscodec.add_residual(classifier.pack, classifier.base, classifier.fine, tmp_path / "exact").path
    ours = fit(exact, classifier.fine, tmp_path / "ours", classifier.base, samples=texts, steps=4)
    theirs = fitted(classifier, texts, tmp_path / "theirs", steps=4)
    assert ours.pack_id == theirs.pack_id


def test_no_steps_change_nothing_but_the_encoders_name(classifier: Made, texts: Path, tmp_path: Path) -> None:
    report = fitted(classifier, texts, tmp_path / "same", steps=0)
    assert report.before == report.after
    with dtscodec.decode(classifier.pack, classifier.base) as old, dtscodec.decode(report.path, classifier.base) as new:
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_where_other_codes_do_not_pay_the_rest_is_fitted_alone(classifier: Made, texts: Path, tmp_path: Path) -> None:
    one, other = (fitted(classifier, texts, tmp_path / f"{codes}", codes=codes) for codes in (True, False))
    assert one.pack_id == other.pack_id
    assert one.numbers == other.numbers


def test_the_report_counts_what_was_fitted(coarse: Made, texts: Path, tmp_path: Path) -> None:
    every, some, fewest, none = (
        fitted(coarse, texts, tmp_path / f"{steps}-{codes}-{elements}", steps=steps, codes=codes, elements=elements)
        for steps, codes, elements in ((30, True, True), (30, False, True), (30, False, False), (0, True, True))
    )
    numbers, codes, values = 0, 0, 0
    with dtscodec.open(coarse.pack) as pack:
        for entry in pack.index.tensors:
            for _, block, streams in pack.reader.blocks(entry.name):
                if isinstance(block, LowRank):
                    numbers += len(streams.numbers) - 1
                    codes += block.rank * sum(block.coded_shape(entry.columns))
                elif isinstance(block, Values):
                    values += math.prod(block.coded_shape(entry.columns))
    assert values
    assert (some.numbers, fewest.numbers, none.numbers) == (numbers + values, numbers, 0)
    assert every.numbers == numbers + codes + values


def test_a_pack_without_coded_tensors_is_refused(classifier: Made, texts: Path, tmp_path: Path) -> None:
    exact = tmp_path / "exact"
    dtscodec.encode(classifier.base, classifier.fine, exact, dtscodec.EncodeConfig(target=dtscodec.Rank(1), raw=("*",)))
    with pytest.raises(NothingToFitError, match="coded"):
        fit(exact, classifier.fine, tmp_path / "out", classifier.base, samples=texts)
    assert not (tmp_path / "out").exists()


def test_an_existing_output_stays(classifier: Made, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(OutputError):
        fitted(classifier, texts, out, steps=1)
    assert out.read_text() == "mine"


def test_bad_samples_and_weights_alone_are_refused(classifier: Made, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(SamplesError):
        fitted(classifier, tmp_path / "none.txt", tmp_path / "out")
    with pytest.raises(CheckpointError, match="`model`"):
        fit(classifier.pack, classifier.fine / "model.safetensors", tmp_path / "out", classifier.base, samples=texts)


def test_a_fit_that_makes_it_worse_is_not_taken(
    classifier: Made, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.calibration.fit_parameters.ELEMENT_RATE", 1e4)
    report = fitted(classifier, texts, tmp_path / "kept", steps=3)
    assert report.after == report.before
    with dtscodec.decode(classifier.pack, classifier.base) as old, dtscodec.decode(report.path, classifier.base) as new:
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_fit_that_ends_in_nan_is_not_taken(
    classifier: Made, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = cycle([FitLoss(0.1, 0.1), FitLoss(float("nan"), 0.0)])
    monkeypatch.setattr("dtscodec.calibration.fit.mean_loss", lambda distillation, batches: next(losses))
    report = fitted(classifier, texts, tmp_path / "kept", steps=1)
    assert report.after == report.before == FitLoss(0.1, 0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_fine_tune_that_gives_nan_or_infinity_is_refused_and_nothing_written(
    classifier: Made, texts: Path, tmp_path: Path, value: float
) -> None:
    fine, out = broken(classifier.fine, tmp_path / "fine", "classifier.bias", value), tmp_path / "out"
    expected = f"{fine}/model.safetensors: expected finite predictions and hidden states, got NaN or infinity; are the"
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        fit(classifier.pack, fine, out, classifier.base, samples=texts)
    assert not out.exists()


def test_choices_may_be_ruled_out_and_padding_hold_anything_but_hidden_states_are_finite() -> None:
    mask, hidden = torch.tensor([[1, 1, 0]]), torch.zeros(1, 3, 4)
    batch = SampleBatch(1, {"attention_mask": mask}, torch.tensor([0]), None)
    logits = torch.tensor([[[0.0, float("-inf")]]])

    def model(**inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=logits, hidden_states=(hidden,))

    hidden[0, 2] = float("nan")
    teacher = Teacher(model, "fine")
    assert teacher.outputs(batch, [batch])[0].predictions.tolist() == [[0.0, float("-inf")]]
    hidden[0, 1, 0] = float("-inf")
    with pytest.raises(CheckpointError, match="fine: expected finite predictions and hidden states"):
        teacher.outputs(batch, [batch])
