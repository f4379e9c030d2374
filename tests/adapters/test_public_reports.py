"""Adapters that other tools got wrong, by their public reports: here they are right, or refused by name."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from torch import Tensor

import dtscodec
from dtscodec.errors import DtsError
from tests import models
from tests.adapters.helpers import Trained, distance, quiet, with_adapter

TOLERANCE = 5e-3


def qwen2(is_tied: bool) -> Any:
    torch.manual_seed(0)
    config = hf.Qwen2Config(
        vocab_size=models.VOCABULARY, hidden_size=models.WIDTH, intermediate_size=models.INNER, num_hidden_layers=2,
        num_attention_heads=models.HEADS, num_key_value_heads=models.HEADS, tie_word_embeddings=is_tied,
    )  # fmt: skip
    return hf.Qwen2ForCausalLM(config)


def inputs() -> dict[str, Tensor]:
    return {"input_ids": torch.arange(3, 35).reshape(2, 16)}


def trained(folder: Path, base: Any, **config: Any) -> Trained:
    return Trained(folder, base, inputs(), **config)


def distance_from_merged(adapter: Trained) -> float:
    """Distance of base and imported pack, written and loaded, from what PEFT merges, saves and loads."""
    with quiet():
        merged = with_adapter(adapter.base, adapter.path).merge_and_unload()
        merged.save_pretrained(adapter.folder / "merged")
    return distance(imported_outputs(adapter), loaded_outputs(adapter, "merged"), adapter.unchanged())


def imported_outputs(adapter: Trained) -> Tensor:
    report = adapter.imported()
    with dtscodec.decode(report.path, adapter.base_path) as decoded:
        decoded.save(adapter.folder / "imported")
    return loaded_outputs(adapter, "imported")


def loaded_outputs(adapter: Trained, name: str) -> Tensor:
    model = type(adapter.base).from_pretrained(adapter.folder / name)
    return models.outputs(model.eval(), adapter.inputs)


def is_refused(adapter: Trained) -> bool:
    """Whether the import is refused, with words of ours."""
    try:
        adapter.imported()
    except DtsError:
        return True
    return False


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]], ids="+".join)
@pytest.mark.parametrize("ensure", [False, True])
def test_a_lora_of_one_side_of_a_tie_is_what_peft_runs(targets: list[str], ensure: bool, tmp_path: Path) -> None:
    """peft#2018, peft#2864: merging a LoRA of one side of a tie changes both sides, and so gives another model."""
    adapter = trained(tmp_path, qwen2(is_tied=True), target_modules=[*targets, "q_proj"], ensure_weight_tying=ensure)
    true = models.outputs(with_adapter(adapter.base, adapter.path), adapter.inputs)
    assert distance(imported_outputs(adapter), true, adapter.unchanged()) < TOLERANCE


@pytest.mark.parametrize("key", ["^q_proj", "q_proj$", "model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj"])
def test_patterns_match_where_they_do_in_peft(key: str, tmp_path: Path) -> None:
    """peft#3582: keys of alpha_pattern with anchors match no layer, without a word."""
    adapter = trained(tmp_path, qwen2(is_tied=False), target_modules=["q_proj", "v_proj"], alpha_pattern={key: 100})
    assert distance_from_merged(adapter) < TOLERANCE


@pytest.mark.parametrize("name", ["lm_head.weight", "lora_B.weight"])
def test_tensors_without_elements_are_refused(name: str, tmp_path: Path) -> None:
    """peft#2450: adapters that were saved under ZeRO-3 without gathering hold tensors of shape [0]."""
    adapter = trained(tmp_path, qwen2(is_tied=False), target_modules=["q_proj"], modules_to_save=["lm_head"])

    def empty(tensors: dict[str, Tensor]) -> None:
        found = next(key for key in tensors if key.endswith(name))
        tensors[found] = torch.empty(0)

    adapter.change_tensors(empty)
    with pytest.raises(DtsError, match="ZeRO-3"):
        adapter.imported()


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("modules", [["embed_tokens"], ["embed_tokens", "lm_head"]], ids="+".join)
def test_trained_tokens_are_what_peft_saves_or_refused(modules: list[str], is_tied: bool, tmp_path: Path) -> None:
    """peft#2863: trainable_token_indices of embedding and head."""
    tokens = {module: [5, 6, 7] for module in modules}
    adapter = trained(tmp_path, qwen2(is_tied), target_modules=["q_proj"], trainable_token_indices=tokens)
    assert is_refused(adapter) or distance_from_merged(adapter) < TOLERANCE


def test_a_lora_of_fused_experts_is_what_peft_saves_or_refused(tmp_path: Path) -> None:
    """vllm#52194: for target_parameters PEFT reads [experts, in, out], the model [experts, out, in]."""
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    torch.manual_seed(0)
    adapter = trained(tmp_path, models.mixtral(), target_modules=["q_proj"], target_parameters=parameters)
    assert is_refused(adapter) or distance_from_merged(adapter) < TOLERANCE


@pytest.mark.parametrize("prefix", ["", "model.", "base_model.model.model.language_model.", "transformer.h."])
def test_an_adapter_of_other_names_is_refused_and_never_changes_nothing(prefix: str, tmp_path: Path) -> None:
    """vllm#34186, vllm#48019: an adapter whose names match no layer is served as the base."""
    adapter = trained(tmp_path, qwen2(is_tied=False), target_modules=["q_proj"])

    def rename(tensors: dict[str, Tensor]) -> None:
        for key in [*tensors]:
            tensors[f"base_model.model.{prefix}blocks." + key.partition("layers.")[2]] = tensors.pop(key)

    adapter.change_tensors(rename)
    with pytest.raises(DtsError, match="blocks"):
        adapter.imported()


def test_layers_of_different_ranks_keep_their_scale(tmp_path: Path) -> None:
    """diffusers#14409: an adapter of several ranks was scaled by the rank of its first layer."""
    base = qwen2(is_tied=False)
    models.save(base, tmp_path / "base")
    fine = copy.deepcopy(base)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for rank, layer in zip((2, 9, 20), ("q_proj", "v_proj", "o_proj"), strict=True):
            weight = fine.model.layers[0].self_attn.get_submodule(layer).weight
            left, right = (
                torch.randn(shape, generator=random) for shape in ((len(weight), rank), (rank, weight.shape[1]))
            )
            weight += 0.02 * left @ right
    models.save(fine, tmp_path / "fine")
    config = dtscodec.EncodeConfig(target=dtscodec.Size.parse("5%"))
    dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", config)
    dtscodec.export_adapter(tmp_path / "pack", tmp_path / "lora", tmp_path / "base")
    outputs, unchanged = (models.outputs(model.eval(), inputs()) for model in (fine, base))
    exported = models.outputs(with_adapter(base, tmp_path / "lora"), inputs())
    assert (exported - outputs).norm() < 0.02 * (outputs - unchanged).norm()
    assert peft.LoraConfig.from_pretrained(str(tmp_path / "lora")).r > 0
