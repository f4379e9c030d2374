"""Figures against their definitions, computed one text at a time by transformers alone."""

import math
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

import dtscodec
from dtscodec.errors import CheckpointError
from dtscodec.evaluation.confidence import agreement_limit, kl_limit
from dtscodec.evaluation.prediction_sums import PredictionSums, compare_predictions
from tests.evaluation.helpers import LABELS, TEXTS, Made, change_config, make, plain_kl, plain_logits, save_tokenizer
from tests.models import POSITIONS, VOCABULARY
from tests.support import make_pack

CLASSIFIER = "BertForSequenceClassification"


def test_sums_equal_their_definitions() -> None:
    generator = torch.Generator().manual_seed(1)
    fine, decoded = torch.randn(2, 50, 7, generator=generator)
    targets = torch.randint(7, (50,), generator=generator)
    sums = compare_predictions(fine, decoded, targets)
    kl = plain_kl(fine.double(), decoded.double()).sum().item()
    assert sums.predictions == 50
    assert sums.kl == pytest.approx(kl)
    assert sums.agreed == sum(fine[i].argmax() == decoded[i].argmax() for i in range(50))
    assert sums.right == sum(fine[i].argmax() == targets[i] for i in range(50))
    assert sums.decoded_right == sum(decoded[i].argmax() == targets[i] for i in range(50))
    assert sums.loss == pytest.approx(torch.nn.functional.cross_entropy(fine, targets, reduction="sum").item())
    assert sums.decoded_loss == pytest.approx(
        torch.nn.functional.cross_entropy(decoded, targets, reduction="sum").item()
    )


def test_choices_that_both_rule_out_add_nothing() -> None:
    fine, decoded = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    ruled_out = torch.full((1,), -math.inf)
    longer = compare_predictions(torch.cat([fine, ruled_out])[None], torch.cat([decoded, ruled_out])[None], None)
    assert longer == compare_predictions(fine[None], decoded[None], None)


def test_figures_of_a_classifier_equal_their_definitions(classifier: Made, labelled: Path) -> None:
    behaviour = classifier.compare(labelled, batch_size=3)
    fine, decoded = (
        torch.stack([logits for _, logits in plain_logits(folder, CLASSIFIER, POSITIONS)])
        for folder in (classifier.fine, classifier.restored())
    )
    labels = torch.tensor(LABELS)
    assert (behaviour.samples, behaviour.predictions, behaviour.perplexity) == (len(TEXTS), len(TEXTS), None)
    assert behaviour.kl == pytest.approx(plain_kl(fine, decoded).mean().item(), rel=1e-4)
    assert behaviour.kl > 0
    assert behaviour.agreement == (fine.argmax(1) == decoded.argmax(1)).double().mean()
    assert behaviour.accuracy is not None
    assert behaviour.accuracy.fine_tune == (fine.argmax(1) == labels).double().mean()
    assert behaviour.accuracy.decoded == (decoded.argmax(1) == labels).double().mean()


@pytest.mark.parametrize(("name", "kind"), [("llama", "LlamaForCausalLM"), ("gpt2", "GPT2LMHeadModel")])
@pytest.mark.parametrize("padding", [True, False])
def test_figures_of_a_language_model_equal_their_definitions(
    tmp_path: Path, texts: Path, name: str, kind: str, padding: bool
) -> None:
    made = make(name, tmp_path, padding=padding)
    positions = POSITIONS if name == "gpt2" else 10**6
    fine, decoded = (plain_logits(folder, kind, positions) for folder in (made.fine, made.restored()))
    kl = torch.cat([plain_kl(a[:-1], b[:-1]) for (_, a), (_, b) in zip(fine, decoded, strict=True)])
    same = [(a[:-1].argmax(1) == b[:-1].argmax(1)) for (_, a), (_, b) in zip(fine, decoded, strict=True)]
    behaviour = made.compare(texts, batch_size=3)
    assert (behaviour.samples, behaviour.predictions, behaviour.accuracy) == (len(TEXTS), len(kl), None)
    assert behaviour.kl == pytest.approx(kl.mean().item(), rel=1e-4)
    assert behaviour.agreement == pytest.approx(torch.cat(same).double().mean().item())
    for perplexity, results in zip(behaviour.perplexity or (), (fine, decoded), strict=True):
        losses = [torch.nn.functional.cross_entropy(b[:-1], t[1:], reduction="sum") for t, b in results]
        assert perplexity == pytest.approx(torch.stack(losses).sum().div(len(kl)).exp().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["bert", "llama", "mixtral"])
def test_an_exact_pack_behaves_as_its_fine_tune(tmp_path: Path, texts: Path, name: str) -> None:
    behaviour = make(name, tmp_path, raw=("*",)).compare(texts)
    assert behaviour.kl == pytest.approx(0, abs=1e-12)
    assert behaviour.agreement == 1
    assert name == "bert" or (behaviour.perplexity and len({f"{value:.6g}" for value in behaviour.perplexity}) == 1)


def test_batches_change_nothing(classifier: Made, language_model: Made, labelled: Path) -> None:
    for made in (classifier, language_model):
        one, all_at_once = (made.compare(labelled, batch_size=size) for size in (1, 100))
        assert (one.predictions, one.agreement, one.accuracy) == (
            all_at_once.predictions,
            all_at_once.agreement,
            all_at_once.accuracy,
        )
        assert one.kl == pytest.approx(all_at_once.kl, rel=1e-4)


def test_a_classifier_with_another_padding_token_than_its_tokenizer_gets_one_text_at_a_time(
    classifier: Made, tmp_path: Path, labelled: Path
) -> None:
    counts: list[int] = []
    model = tmp_path / "model"
    save_tokenizer(model, ends=True, padding=False)
    (model / "config.json").write_bytes((classifier.fine / "config.json").read_bytes())
    alone = classifier.compare(labelled, model=model, progress=counts.append)
    assert counts == [1] * len(TEXTS)
    assert alone.kl == pytest.approx(classifier.compare(labelled).kl, rel=1e-4)


def test_progress_counts_samples(language_model: Made, texts: Path) -> None:
    counts: list[int] = []
    language_model.compare(texts, batch_size=3, progress=counts.append)
    assert counts == [3, 3, 1]


def test_tensors_in_memory_suffice_if_the_model_directory_is_named(classifier: Made, labelled: Path) -> None:
    tensors = load_file(classifier.fine / "model.safetensors")
    behaviour = dtscodec.compare_behaviour(
        classifier.pack, tensors, classifier.base, samples=labelled, model=classifier.fine
    )
    assert behaviour == classifier.compare(labelled)


def test_a_text_of_one_token_predicts_nothing(language_model: Made, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("w1\nw2\n")
    with pytest.raises(CheckpointError, match="expected a text of at least two tokens"):
        language_model.compare(texts)
    texts.write_text("w1\nw2\nw3 w4 w5\n")
    for size in (1, 3):
        behaviour = language_model.compare(texts, batch_size=size)
        assert (behaviour.samples, behaviour.predictions) == (3, 2)


def test_weights_that_are_not_finite_are_reported(tmp_path: Path, texts: Path) -> None:
    made = make("llama", tmp_path)
    tensors = load_file(made.fine / "model.safetensors")
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, made.fine / "model.safetensors")
    with pytest.raises(CheckpointError, match="expected finite numbers"):
        made.compare(texts)


def test_half_precision_is_computed_in_float32(tmp_path: Path, texts: Path) -> None:
    made = make("llama", tmp_path)
    halves = {name: tensor.bfloat16() for name, tensor in load_file(made.fine / "model.safetensors").items()}
    save_file(halves, made.fine / "model.safetensors", {"format": "pt"})
    change_config(made.fine, dtype="bfloat16")
    make_pack(made.base, made.fine, tmp_path / "halves", target=dtscodec.RankShare(0.1))
    made.pack = tmp_path / "halves"
    fine, decoded = (plain_logits(folder, "LlamaForCausalLM", 10**6) for folder in (made.fine, made.restored()))
    kl = torch.cat([plain_kl(a[:-1], b[:-1]) for (_, a), (_, b) in zip(fine, decoded, strict=True)])
    assert made.compare(texts).kl == pytest.approx(kl.mean().item(), rel=1e-4)


def test_limits_are_those_of_the_sums_of_each_text(language_model: Made, texts: Path) -> None:
    behaviour = language_model.compare(texts, batch_size=3)
    fine, decoded = (
        plain_logits(folder, "LlamaForCausalLM", 10**6) for folder in (language_model.fine, language_model.restored())
    )
    pairs = [(a[:-1], b[:-1]) for (_, a), (_, b) in zip(fine, decoded, strict=True) if len(a) > 1]
    sums = [
        PredictionSums(len(a), plain_kl(a, b).sum().item(), int((a.argmax(1) == b.argmax(1)).sum())) for a, b in pairs
    ]
    assert behaviour.kl_limit == pytest.approx(kl_limit(sums), rel=1e-4)
    assert behaviour.agreement_limit == pytest.approx(agreement_limit(sums), rel=1e-9)


@pytest.mark.parametrize("cap", [None, 5.0])
def test_logits_of_a_whole_batch_are_never_held(
    language_model: Made, texts: Path, monkeypatch: pytest.MonkeyPatch, cap: float | None
) -> None:
    plain = language_model.compare(texts)
    sizes = []
    forward = torch.nn.Linear.forward

    def counted(layer: torch.nn.Linear, rows: torch.Tensor) -> torch.Tensor:
        out = forward(layer, rows)
        if out.shape[-1] == VOCABULARY:
            sizes.append(out.numel() // VOCABULARY)
        return out

    plain_forward = LlamaForCausalLM.forward

    @wraps(plain_forward)
    def capped(model: Any, *args: Any, **options: Any) -> Any:
        out = plain_forward(model, *args, **options)
        if cap:
            out.logits = cap * torch.tanh(out.logits / cap)
        return out

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    monkeypatch.setattr(LlamaForCausalLM, "forward", capped)
    behaviour = language_model.compare(texts)
    # The longest text has 80 tokens, and seven texts are in one batch.
    assert max(sizes) <= 80
    # A soft cap, which follows the output layer, is not left out.
    assert (behaviour.kl == pytest.approx(plain.kl, rel=1e-6)) == (cap is None)
