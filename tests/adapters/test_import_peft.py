"""An imported adapter is the model that PEFT trained, and that it merges, saves and loads where it does that right."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

import dtscodec
from dtscodec.adapters.importing.import_adapter import ImportReport
from dtscodec.errors import DtsError
from tests import models

VOCABULARY, ADDED = 96, 6
LARGEST = 1e-3
"""Largest difference of logits at 16 bits, relative to the largest logit."""

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TOKENS = torch.arange(2, 14)[None]


def mistral() -> Any:
    return hf.MistralForCausalLM(hf.MistralConfig(**SMALL))


def qwen3() -> Any:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=True))


def gemma3() -> Any:
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SMALL, head_dim=16))


def gpt2() -> Any:
    size: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 32}
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **size))


def bart() -> Any:
    heads: dict[str, Any] = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    size: dict[str, Any] = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
    }
    return hf.BartForConditionalGeneration(hf.BartConfig(vocab_size=VOCABULARY, **heads, **size))


def t5() -> Any:
    size: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}
    config = hf.T5Config(vocab_size=VOCABULARY, **size)
    config.decoder_start_token_id = 0
    return hf.T5ForConditionalGeneration(config)


def bert_config(**more: Any) -> Any:
    own = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
    return hf.BertConfig(**own, max_position_embeddings=32, **more)


def bert_mlm() -> Any:
    return hf.BertForMaskedLM(bert_config())


def qwen_vl() -> Any:
    rope = {"type": "mrope", "mrope_section": [2, 3, 3], "rope_type": "default"}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    return hf.Qwen2_5_VLForConditionalGeneration(
        hf.Qwen2_5_VLConfig(
            text_config={**SMALL, "rope_scaling": rope}, vision_config={**vision, "fullatt_block_indexes": [0]}
        )
    )


@dataclass
class Adapter:
    """A base on disk and an adapter of it, trained by adding noise to all that is trainable."""

    folder: Path
    build: Callable[[], Any]
    added: int = 0
    saved_base: Callable[[], Any] | None = None
    load: dict[str, Any] = field(default_factory=dict)
    save: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        own = self.build()
        self.kind, self.base, self.path = type(own), self.folder / "base", self.folder / "adapter"
        (own if self.saved_base is None else self.saved_base()).save_pretrained(self.base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(self.start(), peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **self.settings}))
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.05 * torch.randn_like(parameter))
            model.eval().save_pretrained(str(self.path), **self.save)
        self.model: Any = model

    def start(self) -> Any:
        """Return the base as it is trained from: with rows for the added tokens."""
        torch.manual_seed(1)
        model = self.kind.from_pretrained(self.base, **self.load)
        if self.added:
            model.resize_token_embeddings(VOCABULARY + self.added)
        return model

    def logits(self, model: Any) -> Tensor:
        inputs = {"input_ids": TOKENS}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = TOKENS[:, :5]
        return models.outputs(model.eval(), inputs)

    def merged_and_loaded(self) -> Tensor:
        """Return the logits of the model that PEFT merged, after saving and loading it. Call it last."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = self.model.merge_and_unload()
            merged.save_pretrained(self.folder / "merged")
        return self.logits(self.kind.from_pretrained(self.folder / "merged"))

    def check(self) -> ImportReport:
        """The pack, loaded directly and restored, computes what the model of PEFT computes."""
        report = dtscodec.import_adapter(self.path, self.base, self.folder / "pack", force=True)
        want = self.logits(self.model)
        with dtscodec.decode(report.path, self.base) as decoded:
            decoded.save(self.folder / "restored")
        for model in (
            dtscodec.from_pretrained(self.base, report.path),
            self.kind.from_pretrained(self.folder / "restored"),
        ):
            assert float((self.logits(model) - want).abs().max()) < LARGEST * float(want.abs().max())
        return report

    def config(self) -> dict[str, Any]:
        """Return the restored configuration."""
        document: dict[str, Any] = json.loads((self.folder / "restored" / "config.json").read_text())
        return document

    def rename(self, change: Callable[[str], str]) -> None:
        path = self.path / "adapter_model.safetensors"
        save_file({change(name): tensor for name, tensor in load_file(path).items()}, path)


ATTENTION: dict[str, Any] = {"target_modules": ["q_proj"]}
BOTH = {**ATTENTION, "modules_to_save": ["embed_tokens", "lm_head"]}
GPT2: dict[str, Any] = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}

LIKE_MERGED = {
    "mistral": (mistral, 0, ATTENTION),
    "mistral, rank-stabilized": (mistral, 0, {**ATTENTION, "use_rslora": True, "rank_pattern": {"q_proj": 2}}),
    "mistral, embedding and head": (mistral, 0, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "mistral, added tokens": (mistral, ADDED, ATTENTION),
    "mistral, added tokens, trained": (mistral, ADDED, BOTH),
    "mistral, added tokens, LoRA": (mistral, ADDED, {"target_modules": ["embed_tokens", "lm_head"]}),
    "mistral, layers and norms": (mistral, 0, {**ATTENTION, "modules_to_save": ["norm", "input_layernorm"]}),
    "gemma3, trained embedding": (gemma3, 0, {**ATTENTION, "modules_to_save": ["embed_tokens"]}),
    "gemma3, trained head": (gemma3, 0, {**ATTENTION, "modules_to_save": ["lm_head"]}),
    "gemma3, both": (gemma3, 0, BOTH),
    "gemma3, both remain tied": (
        gemma3, 0, {**ATTENTION, "modules_to_save": ["lm_head"], "ensure_weight_tying": True}
    ),
    "gemma3, added tokens": (gemma3, ADDED, ATTENTION),
    "gemma3, fewer tokens": (gemma3, -ADDED, ATTENTION),
    "gemma3, added tokens, both trained": (gemma3, ADDED, BOTH),
    "gemma3, some tokens": (gemma3, 0, {**ATTENTION, "trainable_token_indices": [2, 9, 40]}),
    "gemma3, some added tokens": (gemma3, ADDED, {**ATTENTION, "trainable_token_indices": [3, VOCABULARY + 1]}),
    "bert, trained embedding": (bert_mlm, 0, {"target_modules": ["query"], "modules_to_save": ["word_embeddings"]}),
    "gpt2": (gpt2, 0, GPT2),
    "gpt2, trained embedding": (gpt2, 0, {**GPT2, "modules_to_save": ["wte"]}),
    "gpt2, added tokens": (gpt2, ADDED, {**GPT2, "modules_to_save": ["wte", "lm_head"]}),
    "t5, trained head": (t5, 0, {"target_modules": ["q"], "modules_to_save": ["lm_head"]}),
    "t5, added tokens": (t5, ADDED, {"target_modules": ["q"]}),
    "qwen vl": (qwen_vl, 0, {"target_modules": ["q_proj", "embed_tokens"]}),
    "qwen vl, added tokens": (qwen_vl, ADDED, BOTH),
}  # fmt: skip
"""Adapters that PEFT merges right: name -> model, added tokens, settings."""


@pytest.mark.parametrize("case", LIKE_MERGED)
def test_an_import_equals_the_model_that_peft_trained_and_the_merged_one(case: str, tmp_path: Path) -> None:
    build, added, settings = LIKE_MERGED[case]
    adapter = Adapter(tmp_path, build, added, settings=settings)
    adapter.check()
    want = adapter.logits(adapter.model)
    assert float((adapter.merged_and_loaded() - want).abs().max()) < LARGEST * float(want.abs().max())


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (qwen3, {"target_modules": ["embed_tokens"]}),
        (qwen3, {"target_modules": ["lm_head"]}),
        (qwen3, {"target_modules": ["embed_tokens", "lm_head"]}),
        (qwen3, {"target_modules": ["lm_head"], "ensure_weight_tying": True}),
        (qwen3, {**ATTENTION, "trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [3, 6]}}),
        (t5, {"target_modules": ["q"], "modules_to_save": ["shared"]}),
        (bart, {**ATTENTION, "modules_to_save": ["lm_head"]}),
    ],
    ids=str,
)
def test_of_a_tied_model_the_trained_one_counts_where_merging_changes_it(
    build: Callable[[], Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    adapter = Adapter(tmp_path, build, settings=settings)
    adapter.check()
    want = adapter.logits(adapter.model)
    assert float((adapter.merged_and_loaded() - want).abs().max()) > 0.01 * float(want.abs().max())


@pytest.mark.parametrize(
    ("modules", "is_tied"), [(["embed_tokens"], False), (["lm_head"], False), (["model.norm"], True)]
)
def test_the_configuration_records_whether_embeddings_are_tied(
    modules: list[str], is_tied: bool, tmp_path: Path
) -> None:
    adapter = Adapter(tmp_path, qwen3, settings={**ATTENTION, "modules_to_save": modules})
    report = adapter.check()
    assert adapter.config()["tie_word_embeddings"] is is_tied
    assert [note.kind for note in report.notes] == ([] if is_tied else ["changed-config", "untied"])
    assert len(report.exact) == 1


@pytest.mark.parametrize(
    ("build", "settings", "how"),
    [
        (qwen3, {"target_modules": ["lm_head"]}, "lm_head.weight only; PEFT's merge_and_unload"),
        (qwen3, {"target_modules": ["embed_tokens", "lm_head"]}, "each in its own way; PEFT's merge_and_unload"),
        (t5, {"target_modules": ["lm_head"]}, "lm_head.weight only; PEFT's merge_and_unload"),
        (qwen3, {**ATTENTION, "modules_to_save": ["lm_head"]}, "lm_head.weight only"),
    ],
    ids=str,
)
def test_untied_tensors_are_reported_and_whether_merging_changes_all(
    build: Callable[[], Any], settings: dict[str, Any], how: str, tmp_path: Path
) -> None:
    note = Adapter(tmp_path, build, settings=settings).check().notes[-1]
    assert (note.kind, "lm_head.weight" in note.names) == ("untied", True)
    assert how in note.text
    assert ("merge_and_unload" in note.text) is ("merge_and_unload" in how)


@pytest.mark.parametrize("settings", [{"target_modules": ["wte"]}, {**GPT2, "modules_to_save": ["wte"]}], ids=str)
def test_a_base_without_the_prefix_of_its_model_is_untied_too(settings: dict[str, Any], tmp_path: Path) -> None:
    """The files of GPT-2 and Bloom on the Hub name their tensors so."""
    adapter = Adapter(tmp_path, gpt2, settings=settings)
    path = adapter.base / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    assert adapter.check().notes[-1].kind == "untied"


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_a_base_without_its_head_becomes_the_model_that_was_trained(task: str | None, tmp_path: Path) -> None:
    settings = {"target_modules": ["wte"], "task_type": task}
    adapter = Adapter(tmp_path, gpt2, saved_base=lambda: gpt2().transformer, settings=settings)
    kinds = [note.kind for note in adapter.check().notes]
    assert kinds == ["changed-config", "untied"]
    assert adapter.config()["architectures"] == ["GPT2LMHeadModel"]


def test_a_bias_that_remains_tied_is_stored_twice_where_embeddings_are_untied(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, bert_mlm, ADDED, settings={"target_modules": ["word_embeddings", "decoder"]})
    with dtscodec.open(adapter.check().path) as pack:
        names = [entry.name for entry in pack.index.tensors]
    assert {"cls.predictions.bias", "cls.predictions.decoder.bias"} <= {*names}


def test_the_configuration_has_the_grown_vocabulary_also_of_a_part_of_the_model(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, qwen_vl, ADDED, settings=BOTH)
    report = adapter.check()
    assert adapter.config()["text_config"]["vocab_size"] == VOCABULARY + ADDED
    assert "vocab_size 96 -> 102" in report.notes[0].text


def test_rows_that_equal_the_bases_take_no_bytes(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, gemma3, ADDED, settings=ATTENTION)
    assert adapter.check().pack_bytes < VOCABULARY * 32 * 4 / 2


@pytest.mark.parametrize(("saved", "labels"), [("BertModel", 4), ("BertForSequenceClassification", 3)])
def test_a_new_head_changes_class_and_labels(saved: str, labels: int, tmp_path: Path) -> None:
    adapter = Adapter(
        tmp_path,
        lambda: hf.BertForSequenceClassification(bert_config()),
        saved_base=lambda: getattr(hf, saved)(bert_config()),
        load={"num_labels": labels, "ignore_mismatched_sizes": True},
        settings={"target_modules": ["query", "value"], "task_type": "SEQ_CLS", "bias": "all"},
    )
    adapter.check()
    assert adapter.config()["architectures"] == ["BertForSequenceClassification"]
    assert len(adapter.config()["id2label"]) == labels


def test_a_classifier_of_a_language_model_has_no_language_head(tmp_path: Path) -> None:
    config = hf.Qwen3Config(**SMALL, head_dim=16, pad_token_id=0)
    kind: Any = hf.Qwen3ForSequenceClassification
    adapter = Adapter(
        tmp_path,
        lambda: kind(config),
        saved_base=lambda: hf.Qwen3ForCausalLM(config),
        load={"num_labels": 3},
        settings={**ATTENTION, "task_type": "SEQ_CLS"},
    )
    with dtscodec.open(adapter.check().path) as pack:
        assert pack.index.absent == ("lm_head.weight",)


def test_tensors_in_neither_base_nor_adapter_are_reported(tmp_path: Path) -> None:
    adapter = Adapter(
        tmp_path,
        lambda: hf.BertForSequenceClassification(bert_config()),
        saved_base=lambda: hf.BertForMaskedLM(bert_config()),
        settings={"target_modules": ["query"], "task_type": "SEQ_CLS"},
    )
    report = dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")
    assert report.notes[-1].names == ("bert.pooler.dense.bias", "bert.pooler.dense.weight")


# Names


@pytest.mark.parametrize(
    "change",
    [
        lambda name: "base_model.model." + name,
        lambda name: name.replace("base_model.model.", "base_model.model.policy."),
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: "_orig_mod." + name,
        lambda name: "module." + name,
        lambda name: name.replace("base_model.model.", "base_model.model.module."),
        lambda name: name.replace("layers.0.", "layers.0._orig_mod."),
        lambda name: name.replace("layers.0.", "_fsdp_wrapped_module.layers.0._checkpoint_wrapped_module."),
        lambda name: name.replace(".weight", ".movie.weight") if "lora_" in name else name,
        lambda name: (
            name.replace("norm.weight", "norm.modules_to_save.default.weight") if "lora_" not in name else name
        ),
    ],
)
def test_wrapped_names_are_understood(change: Callable[[str], str], tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, mistral, settings={**ATTENTION, "modules_to_save": ["model.norm"]})
    adapter.rename(change)
    adapter.check()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.norm.weight", "model.norm.parametrizations.weight"),
        ("model.norm.weight", "model.other.weight"),
        ("q_proj.lora_A.weight", "q_proj.lora_C.weight"),
        ("q_proj.lora_A.weight", "q_proj.inner.lora_A.weight"),
        ("base_model.model.", "model."),
    ],
)
def test_tensors_that_no_model_has_are_refused(old: str, new: str, tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, mistral, settings={**ATTENTION, "modules_to_save": ["model.norm"]})
    adapter.rename(lambda name: name.replace(old, new))
    with pytest.raises(DtsError, match="expected") as caught:
        dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pack").exists()


def test_tensors_of_two_adapters_in_one_file_are_refused(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, mistral, settings=ATTENTION)
    adapter.rename(lambda name: name.replace(".lora_A.", ".lora_A.one.").replace(".lora_B.", ".lora_B.two."))
    with pytest.raises(DtsError, match="'one', 'two'"):
        dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")


def test_the_remedy_names_the_folders_of_adapters_with_names(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, mistral, settings=ATTENTION)
    (tmp_path / "run").mkdir()
    adapter.path.rename(tmp_path / "run" / "movie")
    with pytest.raises(DtsError, match="one of the adapters in it: movie"):
        dtscodec.import_adapter(tmp_path / "run", adapter.base, tmp_path / "pack")


# Rows that were not saved


@pytest.mark.parametrize("build", [mistral, gemma3])
def test_added_rows_that_were_not_saved_are_refused(build: Callable[[], Any], tmp_path: Path) -> None:
    settings = {**ATTENTION, "modules_to_save": ["embed_tokens"]}
    adapter = Adapter(tmp_path, build, ADDED, save={"save_embedding_layers": False}, settings=settings)
    with pytest.raises(DtsError, match=r"lm_head.weight: expected \[102, 32\].*save_embedding_layers"):
        dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")


def test_a_bias_for_each_token_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, bart, ADDED, settings=ATTENTION)
    with pytest.raises(DtsError, match=r"final_logits_bias: expected .* merge it with PEFT"):
        dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")


def test_more_tokens_than_rows_are_reported(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, mistral, ADDED, save={"save_embedding_layers": False}, settings=ATTENTION)
    (adapter.path / "added_tokens.json").write_text(json.dumps({"<new>": VOCABULARY + 1}))
    report = dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")
    assert "98 tokens, base and adapter have rows for 96" in report.notes[0].text


def test_an_adapter_of_the_model_without_its_head_may_add_tokens(tmp_path: Path) -> None:
    adapter = Adapter(
        tmp_path,
        lambda: hf.BertModel(bert_config()),
        ADDED,
        saved_base=lambda: hf.BertForTokenClassification(bert_config()),
        settings={"target_modules": ["query"], "task_type": "FEATURE_EXTRACTION"},
    )
    report = dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")
    assert "vocab_size 96 -> 102" in report.notes[0].text
    restored = dtscodec.from_pretrained(adapter.base, report.path).bert.eval()
    with torch.inference_mode():
        ours = restored(TOKENS).last_hidden_state
        want = adapter.model(input_ids=TOKENS).last_hidden_state
    assert float((ours - want).abs().max()) < LARGEST * float(want.abs().max())


def test_tensors_that_transformers_makes_of_several_are_refused(tmp_path: Path) -> None:
    config = hf.Qwen3MoeConfig(**SMALL, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)
    kind: Any = hf.Qwen3MoeForCausalLM
    adapter = Adapter(tmp_path, lambda: kind(config), settings={**ATTENTION, "modules_to_save": ["mlp.experts"]})
    with pytest.raises(DtsError, match=r"experts.*_proj: expected .* merge it with PEFT"):
        dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")


def test_the_layers_of_a_mixture_of_experts_that_are_not_converted_are_imported(tmp_path: Path) -> None:
    config = hf.Qwen3MoeConfig(**SMALL, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)
    kind: Any = hf.Qwen3MoeForCausalLM
    Adapter(tmp_path, lambda: kind(config), settings={**ATTENTION, "modules_to_save": ["lm_head"]}).check()


def test_a_quantized_base_is_read_dequantized_on_request(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, mistral, settings=ATTENTION)
    # Rows of FP8 with a scale each; the adapter is used with what they mean.
    path, name = adapter.base / "model.safetensors", "model.layers.0.self_attn.q_proj.weight"
    state = load_file(path)
    scale = state[name].abs().amax(1, keepdim=True) / 448
    codes = (state[name] / scale).to(torch.float8_e4m3fn)
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    save_file({**state, name: codes, f"{name}_scale": scale}, quantized / "model.safetensors")
    document = json.loads((adapter.base / "config.json").read_text())
    more = {"quantization_config": {"quant_method": "fp8"}}
    (quantized / "config.json").write_text(json.dumps(document | more))
    with pytest.raises(DtsError, match="dequantize_base=True"):
        dtscodec.import_adapter(adapter.path, quantized, tmp_path / "pack")

    report = dtscodec.import_adapter(adapter.path, quantized, tmp_path / "pack", dequantize_base=True)
    assert [note.kind for note in report.notes] == ["dequantized-base"]
    layer = adapter.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    with torch.no_grad():
        layer.weight.copy_(codes.float() * scale)
    want = adapter.logits(adapter.model)
    ours = adapter.logits(dtscodec.from_pretrained(quantized, report.path, dtype=torch.float32))
    # The weight is dequantized to 16 bits.
    assert float((ours - want).abs().max()) < 0.01 * float(want.abs().max())


def test_a_tied_model_that_transformers_does_not_know_is_refused_where_that_matters(tmp_path: Path) -> None:
    adapter = Adapter(tmp_path, qwen3, settings={**ATTENTION, "modules_to_save": ["embed_tokens"]})
    path = adapter.base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "own", "architectures": ["Own"]}))
    with pytest.raises(DtsError, match="since the base ties its embeddings"):
        dtscodec.import_adapter(adapter.path, adapter.base, tmp_path / "pack")
    other = Adapter(tmp_path / "other", qwen3, settings={**ATTENTION, "modules_to_save": ["model.norm"]})
    assert dtscodec.import_adapter(other.path, adapter.base, tmp_path / "pack").exact == ("model.norm.weight",)
