"""The constraints of vLLM on adapters, by its source."""

from typing import Any

import pytest

from dtscodec.adapters.exporting.vllm_constraints import RANKS, max_lora_rank, vllm_problems

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
        ({"r": 8, "rank_pattern": {"q": 600}}, {}, "512"),
        ({"modules_to_save": ["norm"]}, {"base_model.model.norm.weight": (8,)}, "modules_to_save"),
        ({"modules_to_save": ["classifier", "score"]}, {}, "one of modules_to_save"),
        ({"modules_to_save": ["classifier"]}, {"base_model.model.classifier.dense.weight": (8, 8)}, "dense"),
        ({"use_dora": True}, {}, "DoRA"),
        ({"bias": "all"}, {}, "biases"),
        ({}, {"base_model.model.a.lora_magnitude_vector": (8,)}, "lora_magnitude_vector"),
        ({}, {"base_model.model.c.lora_A.weight": (16, 8, 3, 3)}, "convolutions"),
    ],
)
def test_constraints_of_vllm_are_reported(document: Any, tensors: Any, word: str) -> None:
    (problem,) = vllm_problems(PLAIN | document, TENSORS | tensors)
    assert word in problem


def test_patterns_and_one_head_are_no_problem() -> None:
    document = PLAIN | {"rank_pattern": {"q": 4}, "alpha_pattern": {"q": 4}, "modules_to_save": ["score"]}
    head = {"base_model.model.score.weight": (3, 8)}
    assert vllm_problems(document, TENSORS | head, "MistralForSequenceClassification") == []
    (problem,) = vllm_problems(document, TENSORS | head, "MistralForCausalLM")
    assert "modules_to_save are not supported for MistralForCausalLM" in problem


EMBEDDING = {"base_model.model.model.embed_tokens.lora_embedding_A": (16, 9)}
HEAD = {"base_model.model.lm_head.lora_A.weight": (16, 8)}


@pytest.mark.parametrize(
    ("model", "takes_embedding", "takes_head"),
    [
        ("GraniteForCausalLM", True, True),
        ("CohereForCausalLM", True, False),
        ("MistralForCausalLM", False, False),
        ("Gemma3ForCausalLM", False, False),
        ("OlmoeForCausalLM", False, False),
        ("Qwen3ForSequenceClassification", True, True),
        ("Qwen2_5_VLForConditionalGeneration", False, False),
    ],
)
def test_embeddings_and_heads_are_problems_of_the_classes_that_refuse_them(
    model: str, takes_embedding: bool, takes_head: bool
) -> None:
    assert not vllm_problems(PLAIN, TENSORS, model)
    for tensors, is_taken in ((EMBEDDING, takes_embedding), (HEAD, takes_head)):
        problems = vllm_problems(PLAIN, TENSORS | tensors, model)
        assert bool(problems) is not is_taken
        assert all("embed" in problem and model in problem for problem in problems)


@pytest.mark.parametrize("model", ["GPT2LMHeadModel", "BertForSequenceClassification", "BloomForCausalLM", "T5Model"])
def test_a_class_without_lora_is_a_problem(model: str) -> None:
    assert vllm_problems(PLAIN, TENSORS, model) == [f"LoRA is not supported for {model}"]


@pytest.mark.parametrize(("text", "tower"), [("text_model", "vision_model"), ("language_model", "audio_tower")])
def test_lora_outside_the_language_model_is_a_problem(text: str, tower: str) -> None:
    modules = [f"base_model.model.model.{part}.layers.0.self_attn.q_proj.lora_A.weight" for part in (text, tower)]
    (problem,) = vllm_problems(PLAIN, dict.fromkeys(modules, (16, 8)), "SmolVLMForConditionalGeneration")
    assert f"model.{tower}.layers.0.self_attn.q_proj" in problem
    assert text not in problem
