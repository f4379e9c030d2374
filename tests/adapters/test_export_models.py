"""Exports for models of many architectures: PEFT's model equals the decoded one, or what differs is named."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import dtscodec
from dtscodec.adapters.exporting.export_report import ExportReport
from dtscodec.adapters.layer_kinds import lora_layers
from dtscodec.errors import EncodeError
from tests import models
from tests.adapters.helpers import distance, quiet, with_adapter
from tests.models import VOCABULARY, WIDTH

hf: Any = transformers
EXACT = 1e-4
"""Largest distance of outputs with factors of float32, relative to the fine-tune's effect."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOKENS = {"input_ids": torch.arange(3, 35).reshape(2, 16)}


def distilbert() -> Any:
    config = hf.DistilBertConfig(vocab_size=VOCABULARY, dim=WIDTH, n_layers=1, n_heads=2, hidden_dim=48, num_labels=5)
    return hf.DistilBertForSequenceClassification(config)


def roberta() -> Any:
    few = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    config = hf.RobertaConfig(**few, num_attention_heads=2, max_position_embeddings=40, num_labels=5)
    return hf.RobertaForSequenceClassification(config)


def gemma2() -> Any:
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZES, head_dim=16))


def opt() -> Any:
    config = hf.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, word_embed_proj_dim=WIDTH, ffn_dim=48, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=40,
    )  # fmt: skip
    return hf.OPTForCausalLM(config)


def qwen2_vl() -> Any:
    text = SIZES | {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2}
    return hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(text_config=text, vision_config=vision))


CLASSES: dict[str, Callable[[], Any]] = {
    "distilbert": distilbert,
    "roberta": roberta,
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SIZES)),
    "gemma2": gemma2,
    "qwen2_vl": qwen2_vl,
    "mistral": lambda: hf.MistralForSequenceClassification(hf.MistralConfig(**SIZES, num_labels=5)),
}


def change(model: Any) -> Any:
    """Return a copy of which every weight matrix that is large enough has a delta of rank 2."""
    fine, random = copy.deepcopy(model), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in fine.parameters():
            if weight.ndim > 1 and min(weight.flatten(1).shape) > 4:
                flat = weight.flatten(1)
                left, right = (torch.randn(side, 2, generator=random) for side in flat.shape)
                weight += (0.2 * max(float(weight.std()), 0.02) * left @ right.T).view_as(weight)
    return fine


class Exported:
    """A base and a fine-tune on disk, the pack, and the adapter that is exported from it."""

    def __init__(self, base: Any, fine: Any, folder: Path, **options: Any) -> None:
        self.base, self.folder = base.eval(), folder
        self.base_path, fine_path = models.save(base, folder / "base"), models.save(fine, folder / "fine")
        config = dtscodec.EncodeConfig(target=dtscodec.Rank(16))
        self.pack = dtscodec.encode(self.base_path, fine_path, folder / "pack", config).path
        self.report: ExportReport = dtscodec.export_adapter(
            self.pack, folder / "adapter", self.base_path, dtype=torch.float32, **options
        )

    def distance(self, inputs: dict[str, Tensor]) -> float:
        """Return how far PEFT's outputs are from the decoded model's, relative to the fine-tune's effect."""
        decoded = models.outputs(dtscodec.from_pretrained(self.base_path, self.pack).eval(), inputs)
        adapted = models.outputs(with_adapter(self.base, self.report.path), inputs)
        return distance(adapted, decoded, models.outputs(self.base, inputs))


@pytest.mark.parametrize("name", CLASSES)
def test_peft_computes_what_the_decoded_model_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = CLASSES[name]()
    exported = Exported(base, change(base), tmp_path)
    assert exported.report.left_out == ()
    assert exported.distance(TOKENS) < EXACT


def test_adapters_of_renamed_models_use_the_names_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = models.vit()
    exported = Exported(base, change(base), tmp_path)
    assert exported.report.left_out == ()
    assert any(module.endswith("k_proj") for module in exported.report.ranks)
    assert exported.distance(models.ARCHITECTURES["vit"].inputs()) < EXACT


def test_experts_that_transformers_stacks_are_left_out_by_name(tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = models.mixtral()
    fine = copy.deepcopy(base)
    with torch.no_grad():
        fine.model.layers[0].self_attn.q_proj.weight += torch.outer(torch.randn(WIDTH), torch.randn(WIDTH)) * 0.02
        fine.model.layers[0].mlp.experts.down_proj[1] += torch.outer(torch.randn(WIDTH), torch.randn(48)) * 0.02
    exported = Exported(base, fine, tmp_path)
    (left,) = exported.report.left_out
    assert left.name == "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    assert "in memory" in left.why
    assert exported.distance(TOKENS) > EXACT


@pytest.mark.parametrize("name", ["distilbert", "roberta"])
def test_all_heads_of_a_classifier_are_stored_as_a_whole(name: str, tmp_path: Path) -> None:
    base = CLASSES[name]()
    fine = change(base)
    head = fine.pre_classifier if name == "distilbert" else fine.classifier.dense
    nn.init.normal_(head.weight)
    exported = Exported(base, fine, tmp_path)
    config = (exported.report.path / "adapter_config.json").read_text()
    assert exported.report.saved == {"distilbert": ("classifier", "pre_classifier"), "roberta": ("classifier",)}[name]
    assert '"task_type": "SEQ_CLS"' in config
    assert exported.distance(TOKENS) < EXACT


def test_a_head_that_did_not_change_is_not_stored(tmp_path: Path) -> None:
    base = CLASSES["mistral"]()
    fine = change(base)
    with torch.no_grad():
        fine.score.weight.copy_(base.score.weight)
    exported = Exported(base, fine, tmp_path)
    assert exported.report.saved == ()
    assert '"task_type": null' in (exported.report.path / "adapter_config.json").read_text()
    assert exported.distance(TOKENS) < EXACT


def test_a_classifier_of_a_language_model_is_one_that_vllm_loads(tmp_path: Path) -> None:
    base = CLASSES["mistral"]()
    fine = change(base)
    with torch.no_grad():
        fine.model.embed_tokens.weight.copy_(base.model.embed_tokens.weight)
    exported = Exported(base, fine, tmp_path, to="vllm")
    assert (exported.report.saved, exported.report.left_out) == (("score",), ())
    assert (exported.report.vllm_rank, exported.report.vllm_problems) == (16, ())


def test_for_vllm_what_it_refuses_is_left_out(tmp_path: Path) -> None:
    base = gemma2()
    exported = Exported(base, change(base), tmp_path, to="vllm")
    (left,) = exported.report.left_out
    assert left.name == "model.embed_tokens.weight"
    assert left.why == "vLLM refuses LoRA of embeddings for Gemma2ForCausalLM"
    assert left.relative_change is not None
    assert (exported.report.vllm_problems, exported.report.tied) == ((), ())


def test_for_vllm_only_the_language_model_of_an_image_model_is_changed(tmp_path: Path) -> None:
    base = qwen2_vl()
    fine = change(base)
    report = Exported(base, fine, tmp_path, to="vllm").report
    assert all("language_model" in module for module in report.ranks)
    assert {item.why for item in report.left_out} == {
        "vLLM refuses LoRA of embeddings for Qwen2VLForConditionalGeneration",
        "vLLM applies LoRA to the language model only",
    }
    assert report.vllm_problems == ()


def test_for_vllm_a_head_of_several_layers_is_left_out(tmp_path: Path) -> None:
    base = roberta()
    report = Exported(base, change(base), tmp_path, to="vllm").report
    assert report.saved == ()
    assert [left.name for left in report.left_out if "no such head" in left.why] == ["classifier.dense.weight"]
    assert report.vllm_problems == ()


def test_a_model_without_lora_in_vllm_is_refused_before_the_work(tmp_path: Path) -> None:
    base = models.gpt2()
    exported = Exported(base, change(base), tmp_path)
    with pytest.raises(EncodeError, match=r"GPT2LMHeadModel.*to='peft'"):
        dtscodec.export_adapter(exported.pack, tmp_path / "other", exported.base_path, to="vllm")
    assert not (tmp_path / "other").exists()


def test_layers_that_the_code_reads_directly_are_not_changed_by_a_lora() -> None:
    config = hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, state_size=4)
    with torch.device("meta"):
        _, mamba = lora_layers(hf.MambaForCausalLM(config))
        _, whisper = lora_layers(models.whisper())
    assert {"dt_proj", "x_proj", "out_proj"} == {name.rpartition(".")[2] for name in mamba}
    assert {"conv1", "conv2", "embed_positions"} == {name.rpartition(".")[2] for name in whisper}


def test_layers_that_attention_of_torch_reads_are_not_changed_by_a_lora() -> None:
    few: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.device("meta"):
        kinds, refused = lora_layers(hf.SiglipVisionModel(hf.SiglipVisionConfig(**few, image_size=16, patch_size=4)))
        _, encoder = lora_layers(nn.Sequential(nn.TransformerEncoderLayer(8, 2)))
    assert refused.keys() == {"head.attention.out_proj"}
    assert "encoder.layers.0.self_attn.out_proj" in kinds
    assert encoder.keys() == {"0.self_attn.out_proj", "0.linear1", "0.linear2"}


def test_a_subclass_of_a_linear_layer_is_one_if_it_computes_the_same(tmp_path: Path) -> None:
    few = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    base = hf.FalconForCausalLM(hf.FalconConfig(**few))
    exported = Exported(base, change(base), tmp_path)
    assert exported.report.left_out == ()
    assert exported.distance(TOKENS) < EXACT

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    assert lora_layers(nn.Sequential(Doubled(4, 4))) == ({}, {})


def test_embeddings_that_compute_otherwise_are_left_out(tmp_path: Path) -> None:
    """OPT's positions start at 2: PEFT's embedding would look up others."""
    base = opt()
    exported = Exported(base, change(base), tmp_path)
    (left,) = exported.report.left_out
    assert left.name == "model.decoder.embed_positions.weight"
    fine = change(base)
    with torch.no_grad():
        fine.model.decoder.embed_positions.weight.copy_(base.model.decoder.embed_positions.weight)
    (tmp_path / "same").mkdir()
    assert Exported(base, fine, tmp_path / "same").distance(TOKENS) < EXACT


def test_a_speech_model_gets_no_task_type_of_texts(tmp_path: Path) -> None:
    base = models.whisper()
    fine = copy.deepcopy(base)
    with torch.no_grad():
        fine.model.encoder.layers[0].fc1.weight += torch.outer(torch.randn(96), torch.randn(WIDTH)) * 0.02
    exported = Exported(base, fine, tmp_path)
    assert exported.report.left_out == ()
    assert exported.distance(models.ARCHITECTURES["whisper"].inputs()) < EXACT


def test_tied_layers_are_reported_since_peft_would_merge_them_twice(tmp_path: Path) -> None:
    base = gemma2()
    fine = copy.deepcopy(base)
    with torch.no_grad():
        fine.model.embed_tokens.weight += torch.outer(torch.randn(VOCABULARY), torch.randn(WIDTH)) * 0.02
    exported = Exported(base, fine, tmp_path)
    assert exported.report.tied == ("lm_head", "model.embed_tokens")
    assert exported.distance(TOKENS) < EXACT
    with quiet():
        merged = with_adapter(exported.base, exported.report.path).merge_and_unload()
    before = base.lm_head.weight.detach()
    once = fine.lm_head.weight.detach() - before
    assert float((merged.lm_head.weight.detach() - before).norm() / once.norm()) == pytest.approx(2, rel=0.05)
