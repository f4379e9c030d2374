"""Calibration on images: Gram matrices against plain hooks, and packs that come closer by a fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

import dtscodec
from dtscodec.activations.gram_file import GramFile
from dtscodec.calibration.collect import collect
from dtscodec.calibration.fit import fit
from tests.evaluation.helpers import Made
from tests.evaluation.pictures import plain_inputs, plain_model
from tests.support import check_against_spec

PLACES = {
    "vit": {
        "vit.layers.1.attention.k_proj": "vit.encoder.layer.1.attention.attention.key.weight",
        "vit.layers.0.mlp.fc1": "vit.encoder.layer.0.intermediate.dense.weight",
        "classifier": "classifier.weight",
    },
    "resnet": {"classifier.1": "classifier.1.weight"},
}
"""Layers, and what the checkpoint calls their weights."""


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_gram_matrices_are_those_of_what_hooks_see(
    name: str, request: pytest.FixtureRequest, images: Path, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(name)
    seen: dict[str, torch.Tensor] = {}
    model: Any = plain_model(name, made.fine)
    for layer in PLACES[name]:
        model.get_submodule(layer).register_forward_pre_hook(
            lambda module, args, layer=layer: seen.update({layer: args[0].flatten(0, -2).double()})
        )
    with torch.no_grad():
        model(plain_inputs(name, images))
    collect(made.fine, tmp_path / "grams.safetensors", samples=images, batch_size=3)
    with GramFile(tmp_path / "grams.safetensors") as grams:
        for layer, weight in PLACES[name].items():
            found, x = grams.read(weight), seen[layer]
            assert found is not None
            assert found.mean is not None
            assert found.rows == len(x)
            torch.testing.assert_close(found.moment.double(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.mean.double(), x.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_the_decoded_model_comes_closer_to_the_fine_tune(
    name: str, request: pytest.FixtureRequest, images: Path, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(name)
    report = fit(made.pack, made.fine, tmp_path / "fitted", made.base, samples=images, steps=30)
    assert report.samples == 7
    assert report.after.total < 0.9 * report.before.total
    ours = dtscodec.compare_behaviour(report.path, made.fine, made.base, samples=images)
    assert ours.kl == pytest.approx(report.after.kl, rel=1e-2, abs=1e-7)
    check_against_spec(report.path, made.base)


def test_statistics_of_batch_norms_stay_as_they_were_decoded(resnet: Made, images: Path, tmp_path: Path) -> None:
    report = fit(resnet.pack, resnet.fine, tmp_path / "fitted", resnet.base, samples=images, steps=3)
    with dtscodec.decode(resnet.pack, resnet.base) as old, dtscodec.decode(report.path, resnet.base) as new:
        same = {name for name in old if torch.equal(old[name], new[name])}
        assert {name for name in old if "running_" in name or "tracked" in name} <= same
        assert same != set(old)
