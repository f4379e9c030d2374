"""Names of a model's tensors in its checkpoint, against their contents."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.checkpoint_names import checkpoint_names
from dtscodec.storage.open_file import WHOLE
from tests.models import make_pair, save


@pytest.mark.parametrize("name", ["vit", "resnet", "bert", "llama"])
def test_every_tensor_has_the_name_under_which_the_checkpoint_holds_it(tmp_path: Path, name: str) -> None:
    pair = make_pair(name)
    architecture = read_architecture(save(pair.fine, tmp_path / "fine"))
    disk = load_file(tmp_path / "fine" / "model.safetensors")
    with open_checkpoint(tmp_path / "fine", WHOLE) as checkpoint:
        names = checkpoint_names(architecture, checkpoint.specs, pair.fine)
    state = pair.fine.state_dict()
    assert set(names.values()) == set(disk)
    assert all(torch.equal(state[ours], disk[theirs]) for ours, theirs in names.items())


def test_a_tensor_fused_from_several_has_no_name(tmp_path: Path) -> None:
    pair = make_pair("mixtral")
    architecture = read_architecture(save(pair.fine, tmp_path / "fine"))
    with open_checkpoint(tmp_path / "fine", WHOLE) as checkpoint:
        names = checkpoint_names(architecture, checkpoint.specs, pair.fine)
    missing = pair.fine.state_dict().keys() - names.keys()
    assert missing == {f"model.layers.0.mlp.experts.{part}" for part in ("gate_up_proj", "down_proj")}
