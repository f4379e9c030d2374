"""Model directories and weights that are supported, and the errors for others."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from huggingface_hub.utils.tqdm import are_progress_bars_disabled

from dtscodec.errors import BackendError, CheckpointError, DtsError
from dtscodec.evaluation.architecture import load_tokenizer, read_architecture
from dtscodec.evaluation.text_batches import max_tokens
from dtscodec.evaluation.transformers_library import quiet_transformers
from tests.evaluation.helpers import Made, change_config, save_tokenizer
from tests.models import VOCABULARY

Change = Callable[[Path], object]


@pytest.fixture
def directory(classifier: Made, tmp_path: Path) -> Path:
    """A copy of the classifier's directory, which tests damage."""
    return Path(shutil.copytree(classifier.fine, tmp_path / "model"))


CHANGES: dict[str, tuple[Change, str]] = {
    "no configuration": (lambda path: (path / "config.json").unlink(), "expected a model directory with config.json"),
    "no json": (lambda path: (path / "config.json").write_text("{"), "expected a configuration that transformers"),
    "unknown type": (lambda path: change_config(path, model_type="x"), "expected a configuration that transformers"),
    "no class": (lambda path: change_config(path, architectures=None), "got no name under 'architectures'"),
    "unknown class": (lambda path: change_config(path, architectures=["Bart4"]), "got Bart4"),
    "no model": (lambda path: change_config(path, architectures=["AutoConfig"]), "got AutoConfig"),
    "masked": (lambda path: change_config(path, architectures=["BertForMaskedLM"]), "got BertForMaskedLM"),
    "tokens": (lambda path: change_config(path, architectures=["BertForTokenClassification"]), "expected a model for"),
    "one label": (lambda path: change_config(path, id2label={"0": "a"}, label2id={"a": 0}), "at least two labels"),
    "many": (lambda path: change_config(path, problem_type="multi_label_classification"), "got 2 of multi_label"),
    "quantized": (lambda path: change_config(path, quantization_config={}), "expected plain weights"),
    "no tokenizer": (lambda path: (path / "tokenizer.json").unlink(), "expected a tokenizer that transformers"),
    "bad tokenizer": (lambda path: (path / "tokenizer.json").write_text("{}"), "expected a tokenizer that transf"),
    "other tokenizer": (lambda path: save_tokenizer(path, ends=True, words=300), "at most 160 tokens, .* token 163"),
    "other shapes": (lambda path: change_config(path, intermediate_size=100), "'bert.* of .* instead of .* and 3 more"),
    "more layers": (lambda path: change_config(path, num_hidden_layers=3), "got no 'bert.encoder.layer.2.*13 more"),
    "fewer layers": (lambda path: change_config(path, num_hidden_layers=1), "got also 'bert.encoder.layer.1.*13 more"),
    "bad sizes": (lambda path: change_config(path, hidden_size=63), "expected weights of a BertFor"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_directory_of_another_kind_is_refused_in_one_line(
    classifier: Made, directory: Path, tmp_path: Path, name: str
) -> None:
    change, words = CHANGES[name]
    change(directory)
    (tmp_path / "texts.txt").write_text("w5 w159\n")
    with pytest.raises(DtsError, match=words) as caught:
        classifier.compare(tmp_path / "texts.txt", model=directory)
    message = str(caught.value)
    assert message.isprintable()
    assert ": expected " in message
    assert ", got " in message


def test_weights_of_another_configuration_are_refused_by_name(classifier: Made, directory: Path, texts: Path) -> None:
    change_config(directory, num_hidden_layers=3)
    words = "use the model directory that was saved with these weights"
    with pytest.raises(CheckpointError, match=f"^{classifier.fine}/model.safetensors: .*; {words}$"):
        classifier.compare(texts, model=directory)


def test_code_in_a_model_directory_is_never_run(directory: Path) -> None:
    (directory / "modeling.py").write_text("raise SystemExit('code was run')\n")
    references = {"AutoConfig": "modeling.C", "AutoModelForSequenceClassification": "modeling.M"}
    change_config(directory, model_type="own", auto_map=references)
    with pytest.raises(CheckpointError, match="expected a configuration that transformers knows"):
        read_architecture(directory)
    change_config(directory, model_type="bert")
    tokenizer = directory / "tokenizer_config.json"
    tokenizer.write_text(
        json.dumps(json.loads(tokenizer.read_text()) | {"auto_map": {"AutoTokenizer": ["modeling.T", "modeling.T"]}})
    )
    load_tokenizer(read_architecture(directory))


@pytest.mark.parametrize("package", [None, SimpleNamespace(__version__="4.57.1")])
def test_without_the_package_the_error_says_how_to_install_it(
    classifier: Made, texts: Path, monkeypatch: pytest.MonkeyPatch, package: Any
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", package)
    with pytest.raises(BackendError, match=r"pip install 'dtscodec\[transformers\]'"):
        classifier.compare(texts)


@pytest.mark.parametrize("has_bars", [True, False])
def test_settings_of_transformers_are_restored(monkeypatch: pytest.MonkeyPatch, has_bars: bool) -> None:
    log: Any = hf.utils.logging
    monkeypatch.setattr(log, "_tqdm_active", has_bars)
    level = log.get_verbosity()
    with quiet_transformers():
        assert not log.is_progress_bar_enabled()
        assert log.get_verbosity() == log.ERROR
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == (level, has_bars)
    assert not are_progress_bars_disabled()


def test_roberta_counts_its_positions_from_behind_the_padding(tmp_path: Path) -> None:
    config = hf.RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20, pad_token_id=1,
    )  # fmt: skip
    model: Any = hf.RobertaForSequenceClassification(config)
    model.eval()
    length = max_tokens(model, SimpleNamespace(model_max_length=10**30))
    assert length == 18
    model(input_ids=torch.full((1, length), 5))
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        model(input_ids=torch.full((1, length + 1), 5))


def test_a_tokenizer_may_allow_less_than_the_model_and_either_may_know_no_bound(classifier: Made) -> None:
    model: Any = hf.BertForSequenceClassification.from_pretrained(classifier.fine)
    assert [max_tokens(model, SimpleNamespace(model_max_length=n)) for n in (12, 100, 10**30)] == [12, 32, 32]
    model.config = hf.T5Config()  # which counts no positions
    assert [max_tokens(model, SimpleNamespace(model_max_length=n)) for n in (12, 10**30)] == [12, None]
