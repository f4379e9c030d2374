"""Fits that stream: batches by tokens, run in parts, without all logits, resumed after an interruption."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import dtscodec
from dtscodec.calibration.coded_weights import coded_weights
from dtscodec.calibration.distillation import Distillation
from dtscodec.calibration.fit import FitReport, fit
from dtscodec.calibration.fit_checkpoint import FitCheckpoint
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.calibration.model_outputs import plain_output_layer
from dtscodec.calibration.precision import Precision
from dtscodec.calibration.student import Student
from dtscodec.calibration.teacher import Teacher
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.samples import prepare_samples
from tests.evaluation.helpers import TEXTS, Made, save_tokenizer
from tests.models import VOCABULARY, save
from tests.support import make_pack


@pytest.fixture(scope="module")
def soft_capped(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model that changes its logits after the output layer."""
    root = tmp_path_factory.mktemp("gemma2")
    config = hf.Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, final_logit_softcapping=2.0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.Gemma2ForCausalLM(config)
    base = save(model, root / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    fine = save(model, root / "fine")
    save_tokenizer(fine, ends=False)
    make_pack(base, fine, root / "pack", target=dtscodec.RankShare(0.1))
    return Made(base, fine, root / "pack")


class Fit:
    """The models, the loss and the batches of a fit."""

    def __init__(self, made: Made, texts: Path, is_half: bool = False) -> None:
        architecture = read_architecture(made.fine)
        precision = Precision(is_half, "cpu")
        weights: Any = hf.AutoModelForCausalLM.from_pretrained(made.fine, dtype=precision.dtype)
        self.teacher = Teacher(precision.prepare(weights.eval()), "fine")
        with dtscodec.decode(made.pack, made.base) as decoded:
            self.model = precision.prepare(architecture.build(decoded, "decoded", precision.dtype))
            self.student = Student(self.model, coded_weights(self.model, decoded), decoded)
            self.student.rebuild()
        self.batches = list(prepare_samples(architecture, texts).batches(self.model, 16, 1024))
        self.distillation = Distillation(self.student, self.teacher, self.batches[0], precision)

    def gradients(self, batch: SampleBatch) -> tuple[FitLoss, torch.Tensor]:
        self.student.clear_gradients()
        loss = self.distillation.backward(batch)
        return loss, torch.cat([self.student.number_gradient, self.student.element_gradient])


@pytest.mark.parametrize("kind", ["language_model", "soft_capped"])
def test_parts_of_a_batch_and_chunks_of_logits_give_its_loss_and_gradients(
    kind: str, request: pytest.FixtureRequest, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Fit(request.getfixturevalue(kind), texts)
    layer = plain_output_layer(parts.teacher.model, parts.batches[0])
    assert (layer is None) == (kind == "soft_capped")
    monkeypatch.setattr("dtscodec.calibration.distillation.plain_output_layer", lambda model, batch: None)
    whole = Fit(request.getfixturevalue(kind), texts)
    whole.distillation._part_tokens, parts.distillation._part_tokens = 10**6, 20
    (batch,) = [batch for batch in whole.batches if batch.samples > 1][-1:]
    for (loss, gradient), (other, another) in [(whole.gradients(batch), parts.gradients(batch))]:
        assert other.kl == pytest.approx(loss.kl, rel=1e-3)
        assert other.hidden == pytest.approx(loss.hidden, rel=1e-4)
        torch.testing.assert_close(another, gradient, rtol=1e-2, atol=1e-4 * float(gradient.abs().max()))


def test_a_model_that_changes_its_logits_is_fitted(soft_capped: Made, texts: Path, tmp_path: Path) -> None:
    report = fit(soft_capped.pack, soft_capped.fine, tmp_path / "out", soft_capped.base, samples=texts, steps=20)
    assert report.after.total < 0.9 * report.before.total


def test_half_precision_gives_nearly_the_same_loss(language_model: Made, texts: Path) -> None:
    exact, half = Fit(language_model, texts), Fit(language_model, texts, is_half=True)
    batch = exact.batches[-1]
    one, other = exact.distillation.loss(batch), half.distillation.loss(batch)
    assert other.kl == pytest.approx(one.kl, rel=0.2)
    assert other.hidden == pytest.approx(one.hidden, rel=0.2)
    assert {weight.dtype for weight in half.model.parameters() if weight.ndim == 1} == {torch.float32}


def test_a_batch_has_a_number_of_tokens_at_most_and_longer_texts_are_truncated(
    language_model: Made, texts: Path
) -> None:
    prepared = prepare_samples(read_architecture(language_model.fine), texts)
    model = hf.AutoModelForCausalLM.from_pretrained(language_model.fine)
    batches = list(prepared.batches(model, 16, 20))
    assert sum(batch.samples for batch in batches) == len(TEXTS)
    assert all(batch.tokens <= 20 for batch in batches)
    assert sum(batch.truncated for batch in batches) == 1
    whole = list(prepared.batches(model, 3, 10**6))
    assert [batch.samples for batch in whole] == [3, 3, 1]


class Stop(Exception):
    """The end of a run that is cut short."""


@pytest.mark.parametrize("at", [2, 5])
def test_an_interrupted_fit_resumes_and_writes_the_same_pack(
    classifier: Made, texts: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.calibration.fit.FitCheckpoint", lambda path, key: FitCheckpoint(path, key, 0.0))
    state = tmp_path / "state"

    def run(out: str, **more: Any) -> FitReport:
        given = classifier.pack, classifier.fine, tmp_path / out, classifier.base
        return fit(*given, samples=texts, steps=6, **more)

    steps: list[int] = []

    def stop(count: int) -> None:
        steps.append(count)
        if sum(steps) > at:
            raise Stop

    undisturbed = run("undisturbed")
    with pytest.raises(Stop):
        run("out", checkpoint=state, progress=stop)
    assert state.exists()
    steps.clear()
    report = run("out", checkpoint=state, progress=steps.append)
    assert steps[0] == at
    assert sum(steps) in (6, 12)  # Where codes do not gain anything, the rest is fitted alone.
    assert report.pack_id == undisturbed.pack_id
    assert not state.exists()


def test_the_state_of_another_fit_or_a_damaged_one_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "state"
    FitCheckpoint(path, "one", 0.0).save({"step": 3})
    assert FitCheckpoint(path, "one").load() == {"step": 3}
    assert FitCheckpoint(path, "other").load() is None
    path.write_bytes(path.read_bytes()[:-40])
    assert FitCheckpoint(path, "one").load() is None
    path.write_text("something else")
    assert FitCheckpoint(path, "one").load() is None
    FitCheckpoint(path, "one").remove()
    assert FitCheckpoint(path, "one").load() is None
