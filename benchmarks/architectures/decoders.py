"""Decoders of the table."""

from typing import Any

import transformers as hf
from torch import nn

from benchmarks.architectures.architecture import (
    HEADS,
    INNER,
    LAYERS,
    POSITIONS,
    VOCABULARY,
    WIDTH,
    Architecture,
    tokens,
)

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEAD: dict[str, Any] = {"head_dim": WIDTH // HEADS}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.0}
ATTENTION: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "o_proj"]}
LINEAR: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "down_proj"]}


def llama() -> nn.Module:
    """Untied head."""
    return hf.LlamaForCausalLM(hf.LlamaConfig(**COMMON, tie_word_embeddings=False))


def qwen2() -> nn.Module:
    """Tied head, biases of q, k and v."""
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**COMMON, tie_word_embeddings=True))


def qwen3() -> nn.Module:
    """Norms of queries and keys."""
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**COMMON, **HEAD, tie_word_embeddings=False))


def gemma3() -> nn.Module:
    """Tied head, scaled embeddings, norms that add one."""
    config = hf.Gemma3TextConfig(**COMMON, **HEAD, query_pre_attn_scalar=32, sliding_window=8)
    return hf.Gemma3ForCausalLM(config)


def qwen3_moe() -> nn.Module:
    """Experts that are separate on disk and fused in memory."""
    config = hf.Qwen3MoeConfig(**COMMON, **HEAD, **EXPERTS, moe_intermediate_size=48, num_experts=4)
    return hf.Qwen3MoeForCausalLM(config)


def mixtral() -> nn.Module:
    """Experts that have other names in memory than on disk."""
    config = hf.MixtralConfig(**(COMMON | {"intermediate_size": 48}), **EXPERTS, num_local_experts=4)
    return hf.MixtralForCausalLM(config)


def gpt_oss() -> nn.Module:
    """Experts that are fused on disk, with biases; attention sinks."""
    config = hf.GptOssConfig(
        **(COMMON | {"intermediate_size": 48}), **HEAD, **EXPERTS, num_local_experts=4, sliding_window=8
    )
    return hf.GptOssForCausalLM(config)


def phi3() -> nn.Module:
    """One projection of q, k and v."""
    return hf.Phi3ForCausalLM(hf.Phi3Config(**COMMON))


def gpt2() -> nn.Module:
    """Transposed weights (Conv1D), tied head."""
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return hf.GPT2LMHeadModel(config)


def mamba() -> nn.Module:
    """A state space model: convolutions, and parameters of no layer."""
    config = hf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, state_size=8, num_hidden_layers=LAYERS, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return hf.MambaForCausalLM(config)


DECODERS = (
    Architecture("Llama", "dense decoder", llama, tokens, lora=LINEAR),
    Architecture("Qwen2 (tied)", "dense decoder", qwen2, tokens, lora=LINEAR | {"use_rslora": True}),
    Architecture("Qwen3", "dense decoder", qwen3, tokens, lora=LINEAR | {"rank_pattern": {"q_proj": 2}}),
    Architecture("Gemma 3 (text)", "dense decoder", gemma3, tokens, lora=LINEAR),
    Architecture("Qwen3-MoE", "mixture of experts", qwen3_moe, tokens, lora=ATTENTION),
    Architecture("Mixtral", "mixture of experts", mixtral, tokens, lora=ATTENTION),
    Architecture("gpt-oss", "mixture of experts", gpt_oss, tokens, lora=ATTENTION),
    Architecture("Phi-3", "fused projections", phi3, tokens, lora={"target_modules": ["qkv_proj", "gate_up_proj"]}),
    Architecture(
        "GPT-2", "fused projections", gpt2, tokens, lora={"target_modules": ["c_attn"], "fan_in_fan_out": True}
    ),
    Architecture("Mamba", "state space", mamba, tokens, lora={"target_modules": ["in_proj", "x_proj"]}),
)
