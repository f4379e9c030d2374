"""Base + pack, the model of PEFT and the decoded checkpoint compute the same, with real models."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

import dtscodec
from dtscodec.adapters.layer_kinds import lora_layer_kind
from dtscodec.encoding.config import SMALLEST_SIDE
from tests import models
from tests.adapters.helpers import TARGETS, Trained, distance, train, with_adapter
from tests.support import check_against_spec, make_pack

EXACT = 1e-3
"""Largest distance of outputs at 16 bits, relative to the adapter's effect."""


@pytest.fixture(scope="module", params=TARGETS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(request.param, tmp_path_factory.mktemp(request.param))


def test_an_adapter_as_a_pack_computes_what_peft_computes(trained: Trained, tmp_path: Path) -> None:
    report = trained.imported()
    check_against_spec(report.path, trained.base_path)
    model = dtscodec.from_pretrained(trained.base_path, report.path).eval()
    ours = models.outputs(model, trained.inputs)
    assert distance(ours, trained.outputs(), trained.unchanged()) < EXACT

    with dtscodec.decode(report.path, trained.base_path) as decoded:
        decoded.save(tmp_path / "decoded")
    restored = type(trained.base).from_pretrained(tmp_path / "decoded").eval()
    assert torch.equal(models.outputs(restored, trained.inputs), ours)


def test_a_pack_in_a_running_model_computes_what_peft_computes(trained: Trained) -> None:
    report = trained.imported()
    model = copy.deepcopy(trained.base)
    dtscodec.apply_(model, report.path)
    assert distance(models.outputs(model, trained.inputs), trained.outputs(), trained.unchanged()) < EXACT


def test_adapter_to_pack_to_adapter_keeps_the_outputs(trained: Trained) -> None:
    report = trained.imported()
    again = dtscodec.export_adapter(report.path, trained.folder / "again", trained.base_path, force=True)
    outputs = models.outputs(with_adapter(trained.base, again.path), trained.inputs)
    assert distance(outputs, trained.outputs(), trained.unchanged()) < EXACT
    assert (again.rank, again.left_out, again.cut_off) == (4, (), 0)


def test_at_two_bits_the_error_is_reported_and_true(trained: Trained) -> None:
    report = trained.imported(bits=2)
    check_against_spec(report.path, trained.base_path)
    assert 0.2 < report.relative_error < 0.6
    true, base = trained.merged(), trained.base.state_dict()
    lost = whole = 0.0
    with dtscodec.decode(report.path, trained.base_path) as decoded:
        for name in decoded:
            lost += float((decoded[name] - true[name]).double().square().sum())
            whole += float((base[name] - true[name]).double().square().sum())
    assert report.relative_error == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    assert report.pack_bytes < trained.imported().pack_bytes / 3


# From packs of whole fine-tunes


def change_layers(base: Any) -> Any:
    """Return a copy with a low-rank delta in every layer that a LoRA may change, except heads of two classes."""
    fine = copy.deepcopy(base)
    random = torch.Generator().manual_seed(3)
    layers = [module for module in fine.modules() if lora_layer_kind(module)]
    changed = {id(module.weight): module for module in layers if min(module.weight.flatten(1).shape) >= SMALLEST_SIDE}
    with torch.no_grad():
        for module in changed.values():
            weight = module.weight.flatten(1)
            left, right = (torch.randn(side, 3, generator=random) for side in weight.shape)
            weight += 0.2 * weight.std() * left @ right.T
    return fine


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "resnet", "t5"])
def test_an_exported_adapter_equals_our_decode_within_half_precision(name: str, tmp_path: Path) -> None:
    architecture = models.ARCHITECTURES[name]
    torch.manual_seed(1)
    base = architecture.build().eval()
    base_path, fine_path = models.save(base, tmp_path / "base"), models.save(change_layers(base), tmp_path / "fine")
    pack = make_pack(base_path, fine_path, tmp_path / "pack", target=dtscodec.Rank(5)).path
    report = dtscodec.export_adapter(pack, tmp_path / "adapter", base_path)
    assert (report.rank, report.cut_off, report.left_out) == (5, 0, ())

    inputs = architecture.inputs()
    decoded = models.outputs(dtscodec.from_pretrained(base_path, pack).eval(), inputs)
    adapted = models.outputs(with_adapter(base, report.path), inputs)
    assert distance(adapted, decoded, models.outputs(base, inputs)) < EXACT


def test_a_tied_head_changes_with_its_embedding(tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = models.llama().eval()
    fine = copy.deepcopy(base)
    with torch.no_grad():
        fine.model.embed_tokens.weight += torch.outer(torch.linspace(-1, 1, 160), torch.linspace(0, 0.02, 64))
    base_path, fine_path = models.save(base, tmp_path / "base"), models.save(fine, tmp_path / "fine")
    pack = make_pack(base_path, fine_path, tmp_path / "pack", target=dtscodec.Rank(1)).path
    report = dtscodec.export_adapter(pack, tmp_path / "adapter", base_path)
    assert report.tied == ("lm_head", "model.embed_tokens")
    adapted = models.outputs(with_adapter(base, report.path), models.ARCHITECTURES["llama"].inputs())
    decoded = models.outputs(dtscodec.from_pretrained(base_path, pack).eval(), models.ARCHITECTURES["llama"].inputs())
    assert (adapted - decoded).norm() < 1e-3 * decoded.norm()


def test_a_new_head_is_carried_by_modules_to_save(tmp_path: Path) -> None:
    pair = models.make_pair("bert")
    base_path, fine_path = models.save(pair.base, tmp_path / "base"), models.save(pair.fine, tmp_path / "fine")
    pack = make_pack(base_path, fine_path, tmp_path / "pack", target=dtscodec.Rank(64)).path
    report = dtscodec.export_adapter(pack, tmp_path / "adapter", base_path, save_modules=True)
    assert "classifier" in report.saved
    assert "bert.embeddings.LayerNorm" in report.saved
    assert report.left_out == ()

    start = hf.BertForSequenceClassification.from_pretrained(base_path)
    adapted = with_adapter(start, report.path)
    with dtscodec.decode(pack, base_path) as decoded:
        for name in ("classifier", "bert.embeddings.LayerNorm"):
            module: nn.Module = adapted.base_model.model.get_submodule(name).modules_to_save["default"]
            for key, tensor in module.state_dict().items():
                assert torch.equal(tensor, decoded[f"{name}.{key}"])
