"""The effect of the tensors that an export leaves out: relative changes, and predictions on samples."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import dtscodec
from dtscodec.errors import ConfigError, SamplesError
from tests import models
from tests.adapters.helpers import with_adapter
from tests.evaluation.helpers import TEXTS, Made, make, save_tokenizer, write_texts
from tests.support import make_pack


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A causal model whose norms have changed beside its layers."""
    return make("llama", tmp_path_factory.mktemp("effect"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("samples") / "texts.jsonl")


def test_a_left_out_tensor_has_the_change_relative_to_its_own_norm(made: Made, tmp_path: Path) -> None:
    report = dtscodec.export_adapter(made.pack, tmp_path / "adapter", made.base)
    base = models.read_all(made.base)
    with dtscodec.decode(made.pack, made.base) as decoded:
        for item in report.left_out:
            expected = (decoded[item.name] - base[item.name]).norm() / base[item.name].norm()
            assert item.relative_change == pytest.approx(float(expected), rel=1e-4)
    assert any("norm" in item.name for item in report.left_out)


def test_samples_measure_what_the_adapter_loses(made: Made, samples: Path, tmp_path: Path) -> None:
    some = dtscodec.export_adapter(made.pack, tmp_path / "some", made.base, samples=samples, dtype=torch.float32)
    every = dtscodec.export_adapter(
        made.pack, tmp_path / "all", made.base, samples=samples, dtype=torch.float32, save_modules=True
    )
    assert some.effect is not None
    assert every.effect is not None
    assert every.left_out == ()
    assert every.effect.kl < 1e-9 < some.effect.kl
    assert every.effect.agreement == 1


def test_the_effect_is_that_of_the_model_that_peft_makes(tmp_path: Path) -> None:
    made, samples = make("bert", tmp_path), write_texts(tmp_path / "texts.jsonl", [i % 2 for i in range(len(TEXTS))])
    report = dtscodec.export_adapter(made.pack, tmp_path / "adapter", made.base, samples=samples, dtype=torch.float32)
    base = AutoModelForSequenceClassification.from_pretrained(made.base)
    with_adapter(base, report.path).merge_and_unload().save_pretrained(tmp_path / "merged")
    save_tokenizer(tmp_path / "merged", ends=True)
    found = dtscodec.compare_behaviour(made.pack, tmp_path / "merged", made.base, samples=samples)
    assert report.effect is not None
    # KL is not symmetric, these are.
    assert found.agreement == report.effect.agreement
    assert found.accuracy == tuple(reversed(report.effect.accuracy or ()))


def test_samples_need_a_tokenizer(samples: Path, tmp_path: Path) -> None:
    pair = models.make_pair("bert")
    base, fine = models.save(pair.base, tmp_path / "base"), models.save(pair.fine, tmp_path / "fine")
    save_tokenizer(fine, ends=True)
    pack = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Rank(4)).path
    with pytest.raises(ConfigError, match="tokenizer"):
        dtscodec.export_adapter(pack, tmp_path / "a", base, samples=samples, model=pair.fine)
    report = dtscodec.export_adapter(pack, tmp_path / "b", base, samples=samples)  # The head is stored.
    assert report.effect is not None
    with pytest.raises(SamplesError, match="texts"):
        dtscodec.export_adapter(pack, tmp_path / "c", base, samples=tmp_path / "texts that are missing")
    assert not (tmp_path / "c").exists()
