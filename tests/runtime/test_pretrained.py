"""Base + pack -> a model of transformers, without a checkpoint in between."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import dtscodec
from dtscodec.errors import BaseMismatchError, CheckpointError
from tests import models
from tests.models import ARCHITECTURES, Pair
from tests.runtime.helpers import same_state
from tests.support import make_pack


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return models.make_pair(request.param)


@pytest.fixture(scope="module")
def made(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, a fine-tune, a pack, and the fine-tune decoded."""
    root = tmp_path_factory.mktemp("made")
    models.save(pair.base, root / "base")
    models.save(pair.fine, root / "fine")
    make_pack(root / "base", root / "fine", root / "pack", target=dtscodec.RankShare(0.2))
    with dtscodec.decode(root / "pack", root / "base") as decoded:
        decoded.save(root / "decoded")
    return root


def test_the_model_is_that_of_the_decoded_checkpoint(pair: Pair, made: Path) -> None:
    ours = dtscodec.from_pretrained(made / "base", made / "pack")
    theirs = type(pair.fine).from_pretrained(made / "decoded")
    assert type(ours) is type(theirs)
    assert same_state(ours.state_dict(), theirs.state_dict())
    assert not ours.training
    assert ours.config.to_dict() == theirs.config.to_dict() | {"_name_or_path": ours.config._name_or_path}
    if ours.can_generate():
        assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()


def test_dtype_and_device_map_are_those_of_transformers(pair: Pair, made: Path) -> None:
    ours = dtscodec.from_pretrained(made / "base", made / "pack", dtype=torch.bfloat16, device_map="cpu")
    theirs = type(pair.fine).from_pretrained(made / "decoded", dtype=torch.bfloat16, device_map="cpu")
    assert same_state(ours.state_dict(), theirs.state_dict())


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    pair = models.make_pair("bert")
    models.save(pair.base, tmp_path / "base")
    models.save(pair.fine, tmp_path / "fine")
    make_pack(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", target=dtscodec.RankShare(0.2))
    return tmp_path


def test_the_class_may_be_chosen_by_the_configuration(bert: Path) -> None:
    theirs = hf.AutoModelForSequenceClassification
    ours = dtscodec.from_pretrained(bert / "base", bert / "pack", model_class=theirs, config=bert / "fine")
    assert type(ours) is hf.BertForSequenceClassification
    with pytest.raises(CheckpointError, match="expected a configuration for AutoModelForSpeechSeq2Seq"):
        dtscodec.from_pretrained(bert / "base", bert / "pack", model_class=hf.AutoModelForSpeechSeq2Seq)


def test_the_former_name_of_dtype_counts(bert: Path) -> None:
    ours = dtscodec.from_pretrained(bert / "base", bert / "pack", torch_dtype=torch.float16)
    assert ours.dtype == torch.float16


def test_another_base_is_refused(bert: Path) -> None:
    models.save(models.make_pair("bert", seed=7).base, bert / "other")
    with pytest.raises(BaseMismatchError):
        dtscodec.from_pretrained(bert / "other", bert / "pack")


def test_a_pack_without_configuration_needs_one(bert: Path) -> None:
    state = models.read_all(bert / "fine")
    make_pack(bert / "base", state, bert / "bare", target=dtscodec.RankShare(0.2))
    with pytest.raises(CheckpointError, match="give `config`"):
        dtscodec.from_pretrained(bert / "base", bert / "bare")
    config = copy.deepcopy(models.make_pair("bert").fine.config)
    config.architectures = ["BertForSequenceClassification"]
    ours = dtscodec.from_pretrained(bert / "base", bert / "bare", config=config)
    assert same_state(ours.state_dict(), dtscodec.from_pretrained(bert / "base", bert / "pack").state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["NoSuchModel"]}, "give `model_class`"),
        ({"architectures": ["BertModel"]}, r"got also .*; give `model_class`, or `config`"),
        ({"hidden_size": 32}, "expected .*BertForSequenceClassification"),
    ],
    ids=["unknown class", "another class", "other shapes"],
)
def test_a_configuration_of_another_model_is_refused(bert: Path, change: dict[str, Any], message: str) -> None:
    document = json.loads((bert / "fine" / "config.json").read_text())
    (bert / "fine" / "config.json").write_text(json.dumps(document | change))
    make_pack(bert / "base", bert / "fine", bert / "odd", target=dtscodec.RankShare(0.2))
    with pytest.raises(CheckpointError, match=message):
        dtscodec.from_pretrained(bert / "base", bert / "odd")
