"""Bias correction: mean outputs become the fine-tune's, layer by layer, and only biases change."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import dtscodec
from dtscodec.calibration.bias_correction import biased_layers, mean_outputs
from dtscodec.calibration.fit import fit
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.evaluation.samples import prepare_samples
from tests.evaluation.helpers import Made


class TwoLayers(nn.Module):
    """Two layers with a bias, of which one runs twice, and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.plain = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """All of them."""
        result: torch.Tensor = self.norm(self.norm(self.plain(self.first(x))))
        return result


def test_means_are_of_all_rows_but_padding_and_of_layers_that_run_once() -> None:
    torch.manual_seed(0)
    model, x, mask = TwoLayers(), torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert list(biased_layers(model)) == ["first", "norm"]
    batches = [
        SampleBatch(1, {"x": x[i : i + 1], "attention_mask": mask[i : i + 1]}, torch.zeros(1), None) for i in range(2)
    ]
    found = mean_outputs(model, batches, biased_layers(model))
    assert list(found) == ["first"]
    assert torch.allclose(found["first"], model.first(x[mask.bool()]).mean(0).double(), atol=1e-6)
    assert not model.first._forward_hooks


@pytest.fixture
def corrected(classifier: Made, texts: Path, tmp_path: Path) -> Path:
    """A pack that codes every bias, corrected and not fitted."""
    pack, out = tmp_path / "pack", tmp_path / "corrected"
    dtscodec.encode(classifier.base, classifier.fine, pack, dtscodec.EncodeConfig(target=dtscodec.Rank(1)))
    fit(pack, classifier.fine, out, classifier.base, samples=texts, steps=0, bias_correction=True)
    return out


def test_only_biases_change(classifier: Made, corrected: Path) -> None:
    plain = corrected.with_name("pack")
    with dtscodec.decode(plain, classifier.base) as old, dtscodec.decode(corrected, classifier.base) as new:
        moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved
    assert all(name.endswith(".bias") for name in moved)
    assert corrected.stat().st_size == pytest.approx(plain.stat().st_size, abs=32)


def test_mean_outputs_become_those_of_the_fine_tune(classifier: Made, corrected: Path, texts: Path) -> None:
    architecture = read_architecture(classifier.fine)
    batches: list[SampleBatch] = []

    def means(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        model = architecture.build(tensors, "here")
        batches[:] = prepare_samples(architecture, texts).batches(model, 4)
        return mean_outputs(model, batches, biased_layers(model))

    wanted = means(load_file(classifier.fine / "model.safetensors"))
    with dtscodec.decode(corrected.with_name("pack"), classifier.base, whole=True) as decoded:
        before = means(decoded)
    with dtscodec.decode(corrected, classifier.base, whole=True) as decoded:
        after = means(decoded)

    def away(found: Mapping[str, torch.Tensor]) -> float:
        return sum(float((found[name] - wanted[name]).norm()) for name in wanted)

    assert away(after) < 0.6 * away(before)
