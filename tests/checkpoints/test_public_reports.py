"""Checkpoints that other tools got wrong, by their public reports: here they are right, or refused by name."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

import dtscodec
from dtscodec.errors import CheckpointError
from dtscodec.packs.byte_counts import tensor_sizes
from tests import models
from tests.support import check_against_spec, make_pack

State = dict[str, Tensor]


def matrices(*names: str, rows: int = 48, seed: int = 0) -> State:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, 32, generator=random) for name in names}


def tuned(state: State) -> State:
    """A fine-tune: a change of rank two in every matrix, and a small one in every vector."""
    random = torch.Generator().manual_seed(9)
    return {name: tensor + models.delta_like(tensor, random) for name, tensor in state.items()}


def relative_error(decoded: State, fine: State, base: State) -> float:
    """Error of all tensors that the base has, relative to their deltas."""
    lost = sum(float((decoded[name] - fine[name]).square().sum()) for name in base)
    return math.sqrt(lost / sum(float((fine[name] - base[name]).square().sum()) for name in base))


def decoded_state(pack: Path, base: object) -> State:
    with dtscodec.decode(pack, base) as decoded:  # type: ignore[arg-type]
        return dict(decoded)


def without_base(pack: Path) -> list[str]:
    """Names of tensors of which nothing is encoded against the base."""
    with dtscodec.open(pack) as opened:
        entries = [entry for entry in opened.index.tensors if entry.tied_to is None]
    return [entry.name for entry in entries if not any(block.base for _, block in entry.placed())]


def kinds(pack: Path) -> dict[str, str]:
    with dtscodec.open(pack) as opened:
        return {size.name: size.kind for size in tensor_sizes(opened)}


def test_tensors_in_another_order_of_memory_are_encoded_by_their_values(tmp_path: Path) -> None:
    """safetensors#825: arrays in Fortran order are written as garbage."""
    base = matrices("a", "b", rows=32)
    fine = tuned(base)
    transposed = [{name: tensor.t().contiguous().t() for name, tensor in state.items()} for state in (base, fine)]
    assert not transposed[0]["a"].is_contiguous()
    pack = make_pack(transposed[0], transposed[1], tmp_path / "pack", target=dtscodec.Size.parse("50%")).path
    other = make_pack(base, fine, tmp_path / "other", target=dtscodec.Size.parse("50%")).path
    assert pack.read_bytes() == other.read_bytes()
    with dtscodec.decode(pack, transposed[0]) as decoded:
        decoded.save(tmp_path / "restored.safetensors")
    assert relative_error(load_file(tmp_path / "restored.safetensors"), fine, base) < 0.05


def test_scales_of_powers_of_two_and_packed_fp4_are_exact(tmp_path: Path) -> None:
    """safetensors#839: E8M0 scales and FP4 weights do not survive a round trip."""
    packed = torch.arange(8, dtype=torch.uint8).reshape(2, 4)
    base = {"w": packed.view(torch.float4_e2m1fn_x2), "s": torch.tensor([0.5, 1, 2]).to(torch.float8_e8m0fnu)}
    fine = {"w": (packed + 16).view(torch.float4_e2m1fn_x2), "s": torch.tensor([1, 4.0, 8]).to(torch.float8_e8m0fnu)}
    for name, state in (("base", base), ("fine", fine)):
        save_file(state, tmp_path / f"{name}.safetensors")
    dtscodec.encode(tmp_path / "base.safetensors", tmp_path / "fine.safetensors", tmp_path / "pack")
    with dtscodec.decode(tmp_path / "pack", tmp_path / "base.safetensors") as decoded:
        decoded.save(tmp_path / "restored.safetensors")
    restored = load_file(tmp_path / "restored.safetensors")
    for name, tensor in fine.items():
        assert (restored[name].dtype, restored[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(restored[name].view(torch.uint8), tensor.view(torch.uint8))


def test_norms_with_the_names_of_old_checkpoints_are_matched(tmp_path: Path) -> None:
    """transformers#29554: LayerNorm has gamma and beta in bert-base-uncased, weight and bias in its fine-tunes."""
    model = hf.BertModel(models.bert_config())
    model.save_pretrained(tmp_path / "base")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(tmp_path / "base" / "model.safetensors").items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    models.perturb(model, 1)
    model.save_pretrained(tmp_path / "fine")
    report = make_pack(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", target=dtscodec.Size.parse("30%"))
    assert without_base(report.path) == []


def test_normalized_weights_with_the_names_of_an_older_torch_are_matched(tmp_path: Path) -> None:
    """transformers#27605: weight_g and weight_v became parametrizations.weight.original0 and original1."""
    name = "encoder.pos_conv_embed.conv"
    base = matrices("encoder.layer.weight", f"{name}.weight_v") | {f"{name}.weight_g": torch.rand(48, 1)}
    renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    fine = tuned(base)
    for old, new in renamed.items():
        fine[f"{name}.{new}"] = fine.pop(f"{name}.{old}")
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Size.parse("30%"))
    assert without_base(report.path) == []


def test_fused_experts_of_a_state_dict_are_matched_to_the_base_on_disk(tmp_path: Path) -> None:
    """transformers#48805: checkpoints have an expert per tensor, the model in memory has them fused."""
    pair = models.make_pair("mixtral")
    base = models.save(pair.base, tmp_path / "base")
    fine = models.save_bin(pair.fine, tmp_path / "fine")
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Size.parse("30%"))
    assert without_base(report.path) == []
    true, decoded = pair.fine.state_dict(), decoded_state(report.path, base)
    start = pair.base.state_dict()
    assert decoded.keys() == true.keys()
    assert relative_error(decoded, true, start) < 0.2


@pytest.mark.parametrize("variant", ["", ".ema"])
def test_an_index_whose_shards_are_gone_is_named(variant: str, tmp_path: Path) -> None:
    """diffusers#14719: saving in place removed the shards of another variant, or left the index of shards."""
    base = matrices("a.weight", "b.weight")
    fine = tuned(base)
    folder = tmp_path / "unet"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    shards = {name: f"diffusion_pytorch_model{variant}-0000{i}-of-00002.safetensors" for i, name in enumerate(fine, 1)}
    index = folder / f"diffusion_pytorch_model.safetensors.index{variant}.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    save_file(fine, folder / "diffusion_pytorch_model.safetensors")
    save_file(base, tmp_path / "base.safetensors")
    config = dtscodec.EncodeConfig(target=dtscodec.Size.parse("50%"))
    if not variant:  # diffusers would follow this index, and fail too.
        with pytest.raises(CheckpointError, match="00001-of-00002"):
            dtscodec.encode(tmp_path / "base.safetensors", folder, tmp_path / "pack", config)
        return
    report = dtscodec.encode(tmp_path / "base.safetensors", folder, tmp_path / "pack", config)
    assert [index.name in note.text for note in report.notes if note.kind == "passed-over"] == [True]
    assert relative_error(decoded_state(report.path, tmp_path / "base.safetensors"), fine, base) < 0.05


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_head_that_was_written_beside_its_tied_embedding_is_restored(is_equal: bool, tmp_path: Path) -> None:
    """mergekit#390: a merge writes lm_head.weight, which the base, being tied, does not have."""
    base = matrices("model.embed_tokens.weight", "model.layers.0.mlp.weight")
    fine = tuned(base)
    fine["lm_head.weight"] = fine["model.embed_tokens.weight"].clone() + (0 if is_equal else 1)
    for name, state in (("base", base), ("fine", fine)):
        save_file(state, tmp_path / f"{name}.safetensors")
    pack = tmp_path / "pack"
    config = dtscodec.EncodeConfig(target=dtscodec.RankShare(0.1))
    dtscodec.encode(tmp_path / "base.safetensors", tmp_path / "fine.safetensors", pack, config)
    check_against_spec(pack, tmp_path / "base.safetensors")
    decoded = decoded_state(pack, tmp_path / "base.safetensors")
    assert decoded.keys() == fine.keys()
    if is_equal:
        assert kinds(pack)["lm_head.weight"] == "tie"
        assert torch.equal(decoded["lm_head.weight"], decoded["model.embed_tokens.weight"])
    else:
        assert torch.equal(decoded["lm_head.weight"], fine["lm_head.weight"])
        assert without_base(pack) == ["lm_head.weight"]


@pytest.mark.parametrize("rows", [40, 48, 56])
def test_a_vocabulary_may_shrink_and_grow(rows: int, tmp_path: Path) -> None:
    """mergekit#425: a merge cut the embedding down to the tokenizer's vocabulary."""
    names = ("model.embed_tokens.weight", "lm_head.weight")
    base = matrices(*names)
    more = matrices(*names, rows=8, seed=1)
    fine = {name: torch.cat([tensor, more[name]])[:rows] for name, tensor in tuned(base).items()}
    pack = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Size.parse("50%")).path
    decoded = decoded_state(pack, base)
    for name, tensor in fine.items():
        assert decoded[name].shape == (rows, 32)
        start = torch.cat([base[name], torch.zeros(8, 32)])[:rows]
        assert (decoded[name] - tensor).norm() < 0.1 * (tensor - start).norm()
