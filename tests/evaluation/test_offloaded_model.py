"""Models whose layers are in memory one at a time: outputs and gradients are those of the whole model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.empty_model import is_empty
from dtscodec.evaluation.offloaded_model import OffloadedModel, checkpointed_layers, load_offloaded
from tests.models import ARCHITECTURES, HEADS, INNER, VOCABULARY, WIDTH, make_pair, perturb, save


def gemma3() -> Any:
    config = hf.Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=3,
        num_attention_heads=HEADS, num_key_value_heads=1, head_dim=32, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    model: Any = hf.Gemma3ForCausalLM(config)
    perturb(model.eval(), 1)
    return model


MODELS = ["llama", "gemma3", "gpt2", "bert", "mixtral", "vit"]


def model_of(name: str) -> Any:
    return gemma3() if name == "gemma3" else make_pair(name).fine


def inputs_of(name: str) -> dict[str, Tensor]:
    return ARCHITECTURES["llama" if name == "gemma3" else name].inputs()


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, OffloadedModel]]:
    """Yield a whole model of a name, and the same one offloaded."""
    directory = save(model_of(request.param), tmp_path / "fine")
    architecture = read_architecture(directory)
    with open_checkpoint(directory) as checkpoint:
        yield architecture.load(checkpoint), load_offloaded(architecture, checkpoint, "cpu")


def loss_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return a loss of logits and all hidden states."""
    found = model(**inputs, output_hidden_states=True)
    terms: list[Tensor] = [part.square().mean() for part in (found.logits, *found.hidden_states)]
    return torch.stack(terms).sum()


@pytest.mark.parametrize(("opened", "name"), [(name, name) for name in MODELS], indirect=["opened"])
def test_outputs_and_gradients_are_those_of_the_whole_model(opened: tuple[Any, OffloadedModel], name: str) -> None:
    whole, offloaded = opened
    inputs, model = inputs_of(name), offloaded.model
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, whole(**inputs).logits)
    for either in (model, whole):
        either.requires_grad_(True)
        torch.autograd.backward(loss_of(either, inputs))
    gradients = dict(model.named_parameters())
    for own, parameter in whole.named_parameters():
        assert (parameter.grad is None) == (gradients[own].grad is None)
        assert parameter.grad is None or torch.equal(gradients[own].grad, parameter.grad)


@pytest.mark.parametrize("opened", ["llama"], indirect=True)
def test_one_layer_at_most_is_in_memory(opened: tuple[Any, OffloadedModel]) -> None:
    _, offloaded = opened
    model = offloaded.model
    layers, most = checkpointed_layers(model), [0]

    def count(*_: object) -> None:
        held = [sum(not is_empty(parameter) for parameter in layer.parameters()) for layer in layers]
        most[0] = max(most[0], sum(map(bool, held)))

    model.requires_grad_(True)
    for module in model.modules():
        module.register_forward_hook(count)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(count)
    assert all(is_empty(parameter) for layer in layers for parameter in layer.parameters())
    torch.autograd.backward(loss_of(model, inputs_of("llama")))
    assert len(layers) == 2
    assert most == [1]


@pytest.mark.parametrize("opened", ["llama"], indirect=True)
def test_a_layer_is_read_whenever_it_runs(opened: tuple[Any, OffloadedModel]) -> None:
    _, offloaded = opened
    read, names = offloaded.read, []

    def counted(name: str) -> Tensor:
        names.append(name)
        return read(name)

    offloaded.read = counted
    with torch.no_grad():
        first = offloaded.model(**inputs_of("llama")).logits
        offloaded.read = lambda name: 2 * counted(name)
        second = offloaded.model(**inputs_of("llama")).logits
    assert len(names) == 2 * len(set(names)) == 2 * 2 * 9
    assert not torch.equal(first, second)


def test_a_model_without_layers_of_a_transformer_is_refused_by_name(tmp_path: Path) -> None:
    directory = save(make_pair("resnet").fine, tmp_path / "fine")
    with (
        open_checkpoint(directory) as checkpoint,
        pytest.raises(
            CheckpointError, match=r"expected a transformer, .* got a ResNetForImageClassification; .*offload"
        ),
    ):
        load_offloaded(read_architecture(directory), checkpoint, "cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "got no 'model.norm.weight'"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "got also .extra."),
        (lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}), r"'model.norm.weight' of \[3\]"),
    ],
    ids=["missing", "unexpected", "other shape"],
)
def test_other_tensors_are_refused_in_the_words_of_a_whole_model(tmp_path: Path, change: Any, words: str) -> None:
    directory = save(make_pair("llama").fine, tmp_path / "fine")
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    architecture = read_architecture(directory)
    with open_checkpoint(directory) as checkpoint:
        with pytest.raises(CheckpointError, match=words) as whole:
            architecture.load(checkpoint)
        with pytest.raises(CheckpointError) as offloaded:
            load_offloaded(architecture, checkpoint, "cpu")
    assert str(offloaded.value) == str(whole.value)
