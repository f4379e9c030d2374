"""The changes of a pack that an adapter carries, those that it reports as left out, and the constraints of vLLM."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import dtscodec
from dtscodec.adapters.model_layers import ModelLayers, read_model_layers
from dtscodec.adapters.vllm import RANKS, max_lora_rank, vllm_problems
from dtscodec.errors import CheckpointError, ConfigError, EncodeError, ModelMismatchError, OutputError
from tests import models
from tests.adapters.helpers import train
from tests.support import make_pack

States = tuple[dict[str, Tensor], dict[str, Tensor]]
"""A base and a fine-tune."""


class Small(nn.Module):
    """Two layers that a LoRA may change, one that it may not, and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 30), nn.Linear(30, 40, bias=False)
        self.norm = nn.LayerNorm(40)


def low_rank(shape: torch.Size, rank: int, seed: int, size: float = 0.1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(side, rank, generator=random) for side in shape)
    return size * left @ right.T


@pytest.fixture
def states() -> States:
    torch.manual_seed(0)
    base = {name: tensor.clone() for name, tensor in Small().state_dict().items()}
    fine = dict(base)
    for seed, name in enumerate(("first.weight", "second.weight")):
        fine[name] = base[name] + low_rank(base[name].shape, 3, seed)
    return base, fine


def product(path: Path, module: str) -> Tensor:
    tensors = load_file(path / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{module}.lora_{part}.weight"].double() for part in "AB")
    return b @ a


def export(base: Any, fine: Any, folder: Path, encode: dict[str, Any] | None = None, **options: Any) -> Any:
    pack = make_pack(base, fine, folder / "pack", **(encode or {"target": dtscodec.Rank(3)})).path
    return dtscodec.export_adapter(pack, folder / "adapter", base, **({"model": Small()} | options))


def test_the_configuration_is_what_every_reader_understands(states: States, tmp_path: Path) -> None:
    report = export(*states, tmp_path, base_name_or_path="org/base")
    document = json.loads((report.path / "adapter_config.json").read_text())
    assert (document["r"], document["lora_alpha"], document["bias"]) == (8, 8, "none")
    assert document["base_model_name_or_path"] == "org/base"
    assert document["target_modules"] == ["first", "second"]
    assert not {"rank_pattern", "alpha_pattern", "use_dora", "use_rslora"} & document.keys()
    peft.LoraConfig.from_pretrained(report.path)
    shapes = {tuple(t.shape) for t in load_file(report.path / "adapter_model.safetensors").values()}
    assert shapes == {(8, 20), (30, 8), (8, 30), (40, 8)}
    assert (report.vllm_rank, report.vllm_problems) == (8, ())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_products_equal_the_decoded_deltas_within_the_dtype(states: States, dtype: torch.dtype, tmp_path: Path) -> None:
    report = export(*states, tmp_path, dtype=dtype)
    with dtscodec.open(tmp_path / "pack") as pack:
        for module in ("first", "second"):
            delta = torch.from_numpy(pack.delta(f"{module}.weight")).double()
            assert (product(report.path, module) - delta).norm() < 2 * torch.finfo(dtype).eps * delta.norm()
    assert {t.dtype for t in load_file(report.path / "adapter_model.safetensors").values()} == {dtype}


def test_a_smaller_rank_keeps_the_strongest_components_and_reports_the_loss(states: States, tmp_path: Path) -> None:
    report = export(*states, tmp_path, rank=1, dtype=torch.float32)
    lost = whole = 0.0
    with dtscodec.open(tmp_path / "pack") as pack:
        for module in ("first", "second"):
            values = torch.linalg.svdvals(torch.from_numpy(pack.delta(f"{module}.weight")).double()).square()
            lost, whole = lost + float(values[1:].sum()), whole + float(values.sum())
    assert report.rank == 1
    assert report.cut_off == pytest.approx(lost / whole, rel=1e-4)


def test_rows_and_columns_that_are_not_coded_are_zero(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["second.weight"] = base["second.weight"].clone()
    fine["second.weight"][7:31, 2:25] += low_rank(torch.Size([24, 23]), 2, 9)
    report = export(base, fine, tmp_path, {"target": dtscodec.Rank(2)})
    delta = product(report.path, "second")
    outside = torch.ones(40, 30, dtype=torch.bool)
    outside[7:31, 2:25] = False
    assert not delta[outside].any()
    assert (delta[~outside] != 0).all()


def test_what_is_left_out_is_listed_with_its_share(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["norm.weight"], fine["first.bias"] = base["norm.weight"] + 0.5, base["first.bias"] + 0.25
    report = export(base, fine, tmp_path, {"target": dtscodec.Rank(3), "raw": ("norm*",)})
    with dtscodec.decode(tmp_path / "pack", base) as decoded:
        squares = {name: float((decoded[name] - base[name]).square().sum()) for name in decoded}
    total = sum(squares.values())
    found = {item.name: (item.why, item.share) for item in report.left_out}
    assert found.keys() == {"norm.weight", "first.bias"}
    assert found["norm.weight"][0] == "stored exactly"
    for name, (_, share) in found.items():
        assert share == pytest.approx(squares[name] / total, rel=1e-3)
    assert report.left_out_share == pytest.approx((squares["norm.weight"] + squares["first.bias"]) / total, rel=1e-3)


def test_a_tensor_that_the_model_lacks_says_how_to_name_another_model(states: States, tmp_path: Path) -> None:
    base, fine = states
    base["head.weight"], fine["head.weight"] = torch.zeros(40, 40), low_rank(torch.Size((40, 40)), 3, 5)
    (left,) = export(base, fine, tmp_path).left_out
    assert left.name == "head.weight"
    assert "the model that uses the adapter" in left.why
    assert "`model`" in str(left.remedy)


def test_without_the_base_the_share_of_what_is_stored_exactly_is_unknown(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["norm.weight"] = base["norm.weight"] + 0.5
    pack = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Rank(3), raw=("norm*",)).path
    report = dtscodec.export_adapter(pack, tmp_path / "adapter", model=Small())
    assert [(item.name, item.share) for item in report.left_out] == [("norm.weight", None)]


def test_strict_refuses_and_writes_nothing(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["norm.weight"] = base["norm.weight"] + 0.5
    with pytest.raises(EncodeError, match=r"norm\.weight"):
        export(base, fine, tmp_path, strict=True)
    assert not (tmp_path / "adapter").exists()


def test_strict_passes_where_modules_are_saved_and_vllm_problems_are_reported(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["norm.weight"] = base["norm.weight"] + 0.5
    report = export(base, fine, tmp_path, strict=True, save_modules=True)
    assert (report.saved, report.left_out) == (("norm",), ())
    assert (report.vllm_rank, report.vllm_problems) == (None, ("modules_to_save are not supported",))


def test_only_some_layers_of_a_name_are_named_in_full(states: States, tmp_path: Path) -> None:
    trained = train("llama", tmp_path, target_modules=r"model\.layers\.0\.self_attn\.q_proj")
    report = dtscodec.export_adapter(trained.imported().path, tmp_path / "again", trained.base_path)
    document = json.loads((report.path / "adapter_config.json").read_text())
    assert document["target_modules"] == ["model.layers.0.self_attn.q_proj"]
    assert document["task_type"] == "CAUSAL_LM"


def test_factors_that_half_precision_cannot_hold_are_refused(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["first.weight"] = base["first.weight"] + 1e12 * low_rank(base["first.weight"].shape, 1, 5)
    with pytest.raises(EncodeError, match=r"use float32 \(`dtype`\)"):
        export(base, fine, tmp_path, {"target": dtscodec.Rank(1)})
    assert not (tmp_path / "adapter").exists()
    pack = tmp_path / "pack"
    dtscodec.export_adapter(pack, tmp_path / "wide", base, model=Small(), dtype=torch.float32)


def test_a_pack_without_a_delta_of_low_rank_is_refused(states: States, tmp_path: Path) -> None:
    base, _ = states
    with pytest.raises(EncodeError, match="low-rank delta"):
        export(base, base, tmp_path)


def test_a_model_of_other_names_is_refused(states: States, tmp_path: Path) -> None:
    with pytest.raises(ModelMismatchError, match="`model`"):
        export(*states, tmp_path, model=nn.Linear(3, 3))


def test_without_a_configuration_the_model_must_be_named(states: States, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="`model`"):
        export(*states, tmp_path, model=None)


def test_the_configuration_is_found_in_the_pack_beside_the_base_or_where_it_is_named(tmp_path: Path) -> None:
    trained = train("bert", tmp_path)
    pack = trained.imported().path
    with pytest.raises(CheckpointError, match="`base`"):
        dtscodec.export_adapter(pack, tmp_path / "a")
    for report in (
        dtscodec.export_adapter(pack, tmp_path / "b", trained.base_path),
        dtscodec.export_adapter(pack, tmp_path / "c", model=trained.base_path),
    ):
        assert report.model == "BertForSequenceClassification"


def test_wrong_settings_are_refused(states: States, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rank"):
        export(*states, tmp_path, rank=0)
    with pytest.raises(ConfigError, match="float16"):
        dtscodec.export_adapter(tmp_path / "pack", tmp_path / "x", model=Small(), dtype=torch.float64)


def test_nothing_is_replaced_without_force_and_only_adapters_with_it(states: States, tmp_path: Path) -> None:
    export(*states, tmp_path)
    with pytest.raises(OutputError, match="force=True"):
        dtscodec.export_adapter(tmp_path / "pack", tmp_path / "adapter", model=Small())
    dtscodec.export_adapter(tmp_path / "pack", tmp_path / "adapter", model=Small(), force=True)
    (tmp_path / "adapter" / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.md"):
        dtscodec.export_adapter(tmp_path / "pack", tmp_path / "adapter", model=Small(), force=True)


def test_an_output_that_cannot_be_made_is_refused_before_the_model_is_read(states: States, tmp_path: Path) -> None:
    pack = make_pack(*states, tmp_path / "pack", target=dtscodec.Rank(3)).path
    with pytest.raises(OutputError, match="create it first"):
        dtscodec.export_adapter(pack, tmp_path / "missing" / "adapter", model=tmp_path / "no model")


def test_the_same_pack_gives_the_same_bytes(states: States, tmp_path: Path) -> None:
    report = export(*states, tmp_path)
    again = dtscodec.export_adapter(tmp_path / "pack", tmp_path / "again", model=Small())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (report.path / name).read_bytes() == (again.path / name).read_bytes()


# vLLM, by its documented rules


PLAIN: dict[str, Any] = {"r": 16, "lora_alpha": 16, "bias": "none"}
TENSORS = {"base_model.model.a.lora_A.weight": (16, 8), "base_model.model.a.lora_B.weight": (8, 16)}


def test_ranks_are_rounded_up_to_those_that_vllm_can_be_started_with() -> None:
    assert RANKS == (1, 8, 16, 32, 64, 128, 256, 320, 512)
    for rank in range(1, 513):
        assert max_lora_rank(rank) == min(allowed for allowed in RANKS if allowed >= rank)
    assert max_lora_rank(513) is None


def test_a_plain_adapter_has_no_problem() -> None:
    embedding = {"base_model.model.e.lora_embedding_A": (16, 9), "base_model.model.e.lora_embedding_B": (8, 16)}
    skipped = {"base_model.model.lm_head.base_layer.weight": (9, 8)}
    assert vllm_problems(PLAIN, TENSORS | embedding | skipped) == []


@pytest.mark.parametrize(
    ("document", "tensors", "word"),
    [
        ({"r": 513}, {}, "512"),
        ({"modules_to_save": ["classifier"]}, {"base_model.model.classifier.weight": (2, 8)}, "modules_to_save"),
        ({"use_dora": True}, {}, "DoRA"),
        ({"bias": "all"}, {}, "biases"),
        ({"rank_pattern": {"q": 4}}, {}, "patterns"),
        ({"alpha_pattern": {"q": 4}}, {}, "patterns"),
        ({}, {"base_model.model.a.lora_magnitude_vector": (8,)}, "lora_magnitude_vector"),
        ({}, {"base_model.model.c.lora_A.weight": (16, 8, 3, 3)}, "convolutions"),
    ],
)
def test_constraints_of_vllm_are_reported(document: Any, tensors: Any, word: str) -> None:
    (problem,) = vllm_problems(PLAIN | document, TENSORS | tensors)
    assert word in problem


def test_models_are_not_built_with_weights(tmp_path: Path) -> None:
    trained = train("gpt2", tmp_path)
    with dtscodec.open(trained.imported().path) as pack:
        built = read_model_layers(trained.base_path, pack, None)
    assert built == ModelLayers.of(models.gpt2())
    assert built.kinds["transformer.h.0.attn.c_attn"] == "transposed"
    assert set(built.sharing["lm_head.weight"]) == {"lm_head.weight", "transformer.wte.weight"}
