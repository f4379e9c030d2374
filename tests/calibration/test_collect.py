"""Gram matrices of layer inputs: without padding, shared ones once, under the checkpoint's names."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dtscodec.activations.gram_file import GramFile
from dtscodec.calibration.collect import collect
from dtscodec.calibration.gram_collector import GramCollector, collect_grams
from dtscodec.errors import CheckpointError, OutputError
from tests.evaluation.helpers import TEXTS, Made, broken


class Shared(nn.Module):
    """Two layers that see the same tensor, and one that sees what they make."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.out(self.one(x) * self.two(x))  # type: ignore[no-any-return]


def test_moments_and_means_are_those_of_all_inputs_and_shared_ones_count_once() -> None:
    model, batches = Shared(), [torch.randn(4, 6), torch.randn(3, 6)]
    found = collect_grams(model, [{"x": x} for x in batches])
    x = torch.cat(batches).double()
    gram = found.grams["one.weight"]
    torch.testing.assert_close(gram.moment, x.T @ x / 7)
    torch.testing.assert_close(gram.mean, x.mean(0))
    assert (gram.rows, dict(found.same), set(found.grams)) == (
        7,
        {"two.weight": "one.weight"},
        {"one.weight", "out.weight"},
    )


def test_padding_does_not_count() -> None:
    x, mask = torch.randn(2, 4, 6), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    found = collect_grams(Shared(), [{"x": x, "attention_mask": mask}]).grams["one.weight"]
    real = x[mask.bool()].double()
    assert found.rows == 4
    torch.testing.assert_close(found.moment, real.T @ real / 4)


def test_the_model_is_left_as_it_was() -> None:
    model = Shared()
    collector = GramCollector(model)
    with collector.watching():
        model(torch.randn(2, 6))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["classifier", "language_model"])
def test_names_are_those_of_the_checkpoint(
    kind: str, request: pytest.FixtureRequest, texts: Path, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(kind)
    out = tmp_path / "grams.safetensors"
    told: list[int] = []
    found = collect(made.fine, out, samples=texts, progress=told.append)
    assert sum(told) == len(TEXTS)
    query = next(name for name in [*found.grams, *found.same] if "0" in name and ("query" in name or "q_proj" in name))
    key = query.replace("query", "key").replace("q_proj", "k_proj")
    with GramFile(out) as grams:
        one, other = grams.read(query), grams.read(key)
        assert one is not None
        assert other is not None
        assert torch.equal(one.moment, other.moment)


def test_an_existing_output_stays_and_weights_alone_need_a_model(classifier: Made, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "grams.safetensors"
    out.write_text("mine")
    with pytest.raises(OutputError):
        collect(classifier.fine, out, samples=texts)
    with pytest.raises(CheckpointError, match="`model`"):
        collect(classifier.fine / "model.safetensors", tmp_path / "new.safetensors", samples=texts)
    assert out.read_text() == "mine"


def test_the_first_layer_with_inputs_of_nan_or_infinity_is_named_and_nothing_written(
    language_model: Made, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grams.safetensors"
    for value in (float("nan"), float("inf")):
        fine = broken(language_model.fine, tmp_path / f"{value}", "model.layers.0.self_attn.o_proj.weight", value)
        expected = f"{fine}/model.safetensors: model.layers.0.mlp.gate_proj.weight: expected finite inputs of layers"
        with pytest.raises(CheckpointError, match=re.escape(expected)):
            collect(fine, out, samples=texts)
        assert not out.exists()
