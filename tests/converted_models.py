"""Tiny models whose tensors transformers converts as it loads them: one of each class of conversion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as hf
from safetensors.torch import load_file, save_file

TEXT: dict[str, Any] = {
    "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}


def renamed() -> Any:
    """LLaVA: prefixes."""
    vision = hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**TEXT, intermediate_size=40), vision_config=vision, image_token_index=110
    )
    return hf.LlavaForConditionalGeneration(config)


def stacked() -> Any:
    """OLMoE: experts stacked, gate and up joined."""
    config = hf.OlmoeConfig(**TEXT, intermediate_size=40, num_experts=4, num_experts_per_tok=2)
    return hf.OlmoeForCausalLM(config)


def transposed() -> Any:
    """Qwen3-VL-MoE: experts transposed."""
    text = {
        **TEXT, "intermediate_size": 40, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2,
        "head_dim": 8, "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {**VISION, "out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    ids: dict[str, Any] = {
        "image_token_id": 110,
        "video_token_id": 111,
        "vision_start_token_id": 112,
        "vision_end_token_id": 113,
    }
    config = hf.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **ids)
    return hf.Qwen3VLMoeForConditionalGeneration(config)


def split() -> Any:
    """ERNIE 4.5 VL: fused projections split, experts shared among two parameters."""
    text = {
        **TEXT, "intermediate_size": 40, "moe_intermediate_size": [24, 16], "moe_num_experts": 4, "moe_k": 2,
        "mlp_layer_types": ["dense", "sparse"], "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    config = hf.Ernie4_5_VLMoeConfig(text_config=text, vision_config=VISION, image_token_id=110, video_token_id=111)
    return hf.Ernie4_5_VLMoeForConditionalGeneration(config)


def joined() -> Any:
    """OLMo hybrid: convolutions of query, key and value joined."""
    config = hf.OlmoHybridConfig(
        **TEXT, intermediate_size=40, layer_types=["linear_attention", "full_attention"], linear_key_head_dim=8,
        linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2,
    )  # fmt: skip
    return hf.OlmoHybridForCausalLM(config)


CONVERTED: dict[str, Callable[[], Any]] = {
    "renamed": renamed,
    "stacked": stacked,
    "transposed": transposed,
    "split": split,
    "joined": joined,
}


def save_as_published(model: Any, folder: Path) -> Path:
    """Save a model under the names and in the layout of the checkpoints that are published."""
    model.save_pretrained(folder)
    if isinstance(model, hf.Qwen3VLMoeForConditionalGeneration):  # transformers saves these experts as in memory.
        file = folder / "model.safetensors"
        state = load_file(file)
        experts = {name: tensor.transpose(1, 2).contiguous() for name, tensor in state.items() if ".experts." in name}
        save_file(state | experts, file, {"format": "pt"})
    return folder
