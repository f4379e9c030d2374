"""Subclasses of known layers: the side branch follows what they compute, or they are refused by name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding, BartScaledWordEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding
from transformers.models.m2m_100.modeling_m2m_100 import M2M100ScaledWordEmbedding
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated

import dtscodec
from dtscodec.errors import ModelMismatchError
from tests.support import make_pack


def packed(model: nn.Module, folder: Path, **settings: Any) -> tuple[Path, nn.Module]:
    """Return a pack that changes all of a model, and the decoded model."""
    torch.manual_seed(2)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fine = {name: tensor + 0.1 * torch.randn(tensor.shape).to(tensor.dtype) for name, tensor in base.items()}
    pack = make_pack(base, fine, folder / "pack", **settings).path
    own = copy.deepcopy(model)
    dtscodec.apply_(own, pack)
    return pack, own


class ScaledByAnother(nn.Embedding):
    """A layer that has an `embed_scale`, but multiplies by another number."""

    embed_scale = 3.0

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * 9


@pytest.mark.parametrize("settings", [{"target": dtscodec.Rank(3)}, {"raw": ("*",)}], ids=["factors", "exact"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Gemma3TextScaledWordEmbedding(50, 16, 0, 16**0.5),
        lambda: BartScaledWordEmbedding(50, 16, 1, 5.0),
        lambda: M2M100ScaledWordEmbedding(50, 16, 1, 0.25),
    ],
    ids=["gemma3", "bart", "m2m100"],
)
def test_an_embedding_that_scales_its_rows_scales_their_deltas(tmp_path: Path, make: Any, settings: Any) -> None:
    model = nn.Sequential(make())
    pack, own = packed(model, tmp_path, **settings)
    ids = torch.arange(50).reshape(5, 10)
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached:
        with attached.serve(["task", None, "task", None, "task"]):
            ours = model(ids)
        true, base = own(ids), model(ids)
    for row in range(5):
        assert torch.allclose(ours[row], (base if row % 2 else true)[row], rtol=1e-5, atol=1e-5)


def test_a_scale_is_rounded_to_the_dtype_of_the_weights_as_the_layer_does(tmp_path: Path) -> None:
    model = nn.Sequential(Gemma3TextScaledWordEmbedding(50, 16, 0, 50.596)).bfloat16()
    pack, own = packed(model, tmp_path, raw=("*",))
    ids = torch.arange(50).reshape(5, 10)
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached, attached.serve("task"):
        assert torch.equal(model(ids), own(ids))


class Standardized(nn.Conv2d):
    """Changes its weight before it is used, in a method that the parent's `forward` calls."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = super()._conv_forward(x, weight / weight.std(), bias)
        return y


class Doubled(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = super().__call__(x)
        return 2 * y


class Learned(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mul(2)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Standardized(8, 8, 3), "Standardized"),
        (lambda: Doubled(16, 16), "Doubled"),
        (lambda: Learned(16), "Learned"),
        (lambda: ScaledByAnother(50, 16), "ScaledByAnother"),
        (lambda: BartLearnedPositionalEmbedding(50, 16), "BartLearnedPositionalEmbedding"),
        (lambda: Qwen3NextRMSNormGated(16), "Qwen3NextRMSNormGated"),
        (lambda: type("GatedRMSNorm", (Qwen3NextRMSNormGated,), {})(16), "GatedRMSNorm"),
        (lambda: nn.Embedding(50, 16, max_norm=1.0), "Embedding"),
        (lambda: nn.Bilinear(8, 8, 16), "Bilinear"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_that_computes_another_function_is_refused_by_name_and_can_be_switched(
    tmp_path: Path, make: Any, kind: str
) -> None:
    model = nn.ModuleDict({"layer": make()})
    pack, _ = packed(model, tmp_path, raw=("*",))
    with pytest.raises(ModelMismatchError, match=rf"layer\.(weight|bias): .* got {kind}.*; use Switcher"):
        dtscodec.attach(model, {"task": pack})
    dtscodec.Switcher(model, packs={"task": pack}).activate("task")


def test_a_plain_embedding_with_a_scale_that_it_does_not_use_is_not_scaled(tmp_path: Path) -> None:
    layer: Any = nn.Embedding(50, 16)
    layer.embed_scale = 7.0
    model = nn.Sequential(layer)
    pack, own = packed(model, tmp_path, target=dtscodec.Rank(3))
    ids = torch.arange(6).reshape(2, 3)
    with torch.no_grad(), dtscodec.attach(model, {"task": pack}) as attached, attached.serve("task"):
        assert torch.allclose(model(ids), own(ids), atol=1e-5)
