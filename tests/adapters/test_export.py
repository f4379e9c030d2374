"""The changes of a pack that an adapter carries, and those that it reports as left out."""

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
from dtscodec.adapters.peft_config import parse_settings, settings_document
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
    assert (document["r"], document["lora_alpha"], document["bias"]) == (3, 3, "none")
    assert document["base_model_name_or_path"] == "org/base"
    assert document["target_modules"] == ["first", "second"]
    assert document["rank_pattern"] == document["alpha_pattern"] == {}
    assert not {"use_dora", "use_rslora"} & document.keys()
    peft.LoraConfig.from_pretrained(report.path)
    assert shapes(report.path) == {(3, 20), (30, 3), (3, 30), (40, 3)}


def shapes(path: Path) -> set[tuple[int, ...]]:
    return {tuple(tensor.shape) for tensor in load_file(path / "adapter_model.safetensors").values()}


def test_each_layer_has_its_own_rank_and_a_scale_of_1(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["first.weight"] = base["first.weight"] + low_rank(base["first.weight"].shape, 2, 0)
    fine["second.weight"] = base["second.weight"] + low_rank(base["second.weight"].shape, 9, 1)
    report = export(base, fine, tmp_path, {"target": dtscodec.MaxError(0.001)}, dtype=torch.float32)
    few, many = report.ranks["first"], report.ranks["second"]
    assert few < many == report.rank
    config = peft.LoraConfig.from_pretrained(report.path)
    assert (config.r, config.lora_alpha) == (many, many)
    assert config.rank_pattern == config.alpha_pattern == {r"^first": few}
    assert shapes(report.path) == {(few, 20), (30, few), (many, 30), (40, many)}
    adapted = peft.PeftModel.from_pretrained(build_small(base), report.path).merge_and_unload().state_dict()
    with dtscodec.decode(tmp_path / "pack", base) as decoded:
        for name in ("first.weight", "second.weight"):
            assert torch.allclose(adapted[name], decoded[name], atol=1e-5)


def build_small(state: dict[str, Tensor]) -> Any:
    model = Small()
    model.load_state_dict(state)
    return model


def test_names_in_patterns_match_no_longer_name() -> None:
    ranks = {"a.b": 2, "x.a.b": 4, "a_b": 3}
    options: dict[str, Any] = {"base": None, "task_type": None, "target_modules": [], "modules_to_save": []}
    document = settings_document(ranks, has_biases=False, fan_in_fan_out=False, **options)
    settings = parse_settings(json.dumps(document).encode(), "here")
    assert {name: (settings.rank_of(name), settings.scale_of(name)) for name in ranks} == {
        name: (rank, 1.0) for name, rank in ranks.items()
    }


def test_a_uniform_rank_pads_with_zeros(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["first.weight"] = base["first.weight"] + low_rank(base["first.weight"].shape, 1, 0)
    export(base, fine, tmp_path, {"target": dtscodec.MaxError(0.001)})
    own = {module: product(tmp_path / "adapter", module) for module in ("first", "second")}
    report = dtscodec.export_adapter(tmp_path / "pack", tmp_path / "padded", model=Small(), uniform_rank=True)
    assert shapes(report.path) == {(report.rank, 20), (30, report.rank), (report.rank, 30), (40, report.rank)}
    assert json.loads((report.path / "adapter_config.json").read_text())["rank_pattern"] == {}
    for module, delta in own.items():
        assert torch.equal(product(report.path, module), delta)


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


class Twins(nn.Module):
    """Two layers of equal shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(20, 20, bias=False) for _ in range(3))


@pytest.mark.parametrize("has_base", [True, False])
def test_a_delta_of_another_tensor_of_the_base_is_left_out_by_name(has_base: bool, tmp_path: Path) -> None:
    """A LoRA is added to the base's tensor of its own name; here `first` is encoded against `second`."""
    torch.manual_seed(0)
    base = {name: tensor.clone() for name, tensor in Twins().state_dict().items()}
    fine = {name: tensor + low_rank(tensor.shape, 2, 1) for name, tensor in base.items()}
    fine["first.weight"] = base["second.weight"] + low_rank(torch.Size((20, 20)), 2, 5)
    fine["second.weight"] = base["first.weight"].clone()
    renames = (("first.", "second."), ("second.", "first."))
    pack = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Rank(3), renames=renames).path
    report = dtscodec.export_adapter(pack, tmp_path / "adapter", base if has_base else None, model=Twins())
    assert set(report.ranks) == {"third"}
    assert {item.name for item in report.left_out} == {"first.weight", "second.weight"}
    assert all("another tensor of the base" in item.why for item in report.left_out)


def test_a_tensor_of_another_shape_in_the_base_is_left_out_by_name(states: States, tmp_path: Path) -> None:
    base, fine = states
    base["second.weight"], base["norm.weight"] = base["second.weight"][:32].clone(), torch.ones(32)
    report = export(base, fine, tmp_path, {"target": dtscodec.Rank(3), "raw": ("norm*",)})
    found = {item.name: item.why for item in report.left_out}
    assert found["second.weight"] == found["norm.weight"] == "of another shape in the base"


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


def test_strict_advises_to_store_modules_only_where_that_is_possible(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["norm.weight"] = base["norm.weight"] + 0.5
    with pytest.raises(EncodeError, match=r"save_modules=True"):
        export(base, fine, tmp_path, strict=True)
    # A name that vLLM supports.
    model = type("LlamaForCausalLM", (Small,), {})()
    with pytest.raises(EncodeError, match=r"decode the pack"):
        dtscodec.export_adapter(tmp_path / "pack", tmp_path / "adapter", base, model=model, strict=True, to="vllm")


def test_strict_passes_where_modules_are_saved_and_vllm_problems_are_reported(states: States, tmp_path: Path) -> None:
    base, fine = states
    fine["norm.weight"] = base["norm.weight"] + 0.5
    report = export(base, fine, tmp_path, strict=True, save_modules=True)
    assert (report.saved, report.left_out) == (("norm",), ())
    assert report.vllm_rank is None
    assert "modules_to_save other than classifier and score are not supported: norm" in report.vllm_problems


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
    with pytest.raises(CheckpointError, match=r"none: expected a directory with config\.json"):
        dtscodec.export_adapter(tmp_path / "pack", tmp_path / "adapter", states[0], model=tmp_path / "none")


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


def test_models_are_not_built_with_weights(tmp_path: Path) -> None:
    trained = train("gpt2", tmp_path)
    with dtscodec.open(trained.imported().path) as pack:
        built = read_model_layers(trained.base_path, pack, None)
        assert built == ModelLayers.of(models.gpt2(), {entry.name: entry.spec for entry in pack.index.tensors})
    assert built.kinds["transformer.h.0.attn.c_attn"] == "transposed"
    assert set(built.sharing["lm_head.weight"]) == {"lm_head.weight", "transformer.wte.weight"}
