"""Models of images and text."""

from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from benchmarks.architectures.architecture import HEADS, INNER, LAYERS, VOCABULARY, WIDTH, Architecture, Inputs, noise
from benchmarks.architectures.decoders import ATTENTION, COMMON, HEAD

IMAGE, PATCH = 32, 8
IMAGE_TOKEN, VIDEO_TOKEN, START, END = (VOCABULARY - i for i in range(1, 5))
VISION: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": IMAGE,
    "patch_size": PATCH,
}


def gemma3() -> nn.Module:
    """SigLIP, a projector, and Gemma 3."""
    config = hf.Gemma3Config(
        text_config=COMMON | HEAD | {"query_pre_attn_scalar": 32, "sliding_window": 8},
        vision_config=VISION,
        mm_tokens_per_image=4,
        boi_token_index=START,
        eoi_token_index=END,
        image_token_index=IMAGE_TOKEN,
    )
    return hf.Gemma3ForConditionalGeneration(config)


def qwen2_5_vl() -> nn.Module:
    """A vision tower that runs on the patches of all images at once, and Qwen2."""
    vision = {
        "depth": LAYERS, "hidden_size": WIDTH, "intermediate_size": INNER, "num_heads": HEADS, "patch_size": 4,
        "out_hidden_size": WIDTH, "window_size": 16, "fullatt_block_indexes": [1],
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]}
    config = hf.Qwen2_5_VLConfig(
        text_config=COMMON | {"rope_parameters": rope},
        vision_config=vision,
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def llava() -> nn.Module:
    """CLIP's vision tower, a projector, and Llama."""
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION, projection_dim=WIDTH),
        text_config=hf.LlamaConfig(**COMMON),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=(IMAGE // PATCH) ** 2,
    )
    return hf.LlavaForConditionalGeneration(config)


# Inputs of two rows, each with an image


def _rows(count: int) -> Tensor:
    """Return two rows of tokens, among them `count` that stand for an image."""
    rows = [[5 + row, START, *[IMAGE_TOKEN] * count, END, *range(20 + row, 26 + row)] for row in range(2)]
    return torch.tensor(rows)


def gemma3_inputs() -> Inputs:
    """Return text and images of Gemma 3."""
    return {"input_ids": _rows(4), "pixel_values": noise(2, 3, IMAGE, IMAGE)}


def llava_inputs() -> Inputs:
    """Return text and images of LLaVA."""
    return {"input_ids": _rows((IMAGE // PATCH) ** 2), "pixel_values": noise(2, 3, IMAGE, IMAGE)}


def qwen2_5_vl_inputs() -> Inputs:
    """Return text, and the patches of both images in a row: 4 x 4 each, of which 2 x 2 become one token."""
    ids = _rows(4)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": noise(2 * 16, 3 * 2 * 4 * 4),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * 2),
        "mm_token_type_ids": (ids == IMAGE_TOKEN).int(),
    }


MULTIMODAL = (
    Architecture("Gemma 3 (multimodal)", "vision-language", gemma3, gemma3_inputs, lora=ATTENTION),
    Architecture("Qwen2.5-VL", "vision-language", qwen2_5_vl, qwen2_5_vl_inputs, lora=ATTENTION),
    Architecture("LLaVA", "vision-language", llava, llava_inputs, lora=ATTENTION),
)
