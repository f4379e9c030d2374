"""Names and forms of a checkpoint's tensors in the model that transformers makes of them, against their contents."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dtscodec.evaluation.weight_conversions import is_ignored_on_load, locate_tensors, transformers_models
from tests.converted_models import CONVERTED, save_as_published
from tests.models import make_pair, save


@pytest.mark.parametrize("name", ["vit", "resnet", "bert", "llama"])
def test_every_tensor_has_the_name_under_which_the_checkpoint_holds_it(tmp_path: Path, name: str) -> None:
    model = make_pair(name).fine
    save(model, tmp_path / "fine")
    disk, state = load_file(tmp_path / "fine" / "model.safetensors"), model.state_dict()
    located = locate_tensors(model, {name: tuple(tensor.shape) for name, tensor in disk.items()})
    assert not located.groups
    assert set(located.renamed) == set(disk)
    assert all(torch.equal(state[ours], disk[theirs]) for theirs, ours in located.renamed.items())


@pytest.mark.parametrize("kind", CONVERTED)
def test_groups_convert_as_transformers_loads_and_back(tmp_path: Path, kind: str) -> None:
    built = CONVERTED[kind]()
    disk = load_file(save_as_published(built, tmp_path / "base") / "model.safetensors")
    model = type(built).from_pretrained(tmp_path / "base")
    state = model.state_dict()
    located = locate_tensors(model, {name: tuple(tensor.shape) for name, tensor in disk.items()})
    assert set(located.renamed) | {name for group in located.groups for name in group.sources} == set(disk)
    assert all(torch.equal(state[ours], disk[theirs]) for theirs, ours in located.renamed.items())
    for group in located.groups:
        forth = group.to_model({name: disk[name] for name in group.sources})
        assert set(forth) == set(group.targets)
        assert all(torch.equal(forth[name], state[name]) for name in group.targets)
        back = group.to_checkpoint({name: state[name] for name in group.targets})
        assert all(torch.equal(back[name], disk[name]) for name in group.sources)


def test_experts_are_taken_apart_without_a_copy(tmp_path: Path) -> None:
    model = CONVERTED["stacked"]()
    disk, state = load_file(save_as_published(model, tmp_path / "base") / "model.safetensors"), model.state_dict()
    groups = locate_tensors(model, {name: tuple(tensor.shape) for name, tensor in disk.items()}).groups
    assert groups
    for group in groups:
        parts = group.to_checkpoint({name: state[name] for name in group.targets}).values()
        memory = {state[name].untyped_storage().data_ptr() for name in group.targets}
        assert {part.untyped_storage().data_ptr() for part in parts} == memory


def test_names_in_memory_stay_as_they_are() -> None:
    model = CONVERTED["stacked"]()
    names = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    located = locate_tensors(model, names)
    assert located.renamed == {name: name for name in names}
    assert not located.groups


def test_models_of_transformers_are_found_inside_others() -> None:
    model = CONVERTED["renamed"]()
    assert transformers_models(model) == {"": model}
    assert transformers_models(torch.nn.Sequential(torch.nn.Linear(2, 2), model)) == {"1.": model}
    assert transformers_models(torch.nn.Linear(2, 2)) == {}


def test_tensors_that_transformers_leaves_out_are_known() -> None:
    model = make_pair("llama").fine
    model._keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq"]
    assert is_ignored_on_load(model, "model.layers.0.rotary_emb.inv_freq")
    assert not is_ignored_on_load(model, "model.norm.weight")
