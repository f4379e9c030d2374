"""Small real models for the tests, built from their configs, and fine-tunes of them. Nothing is downloaded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from huggingface_hub.utils.tqdm import enable_progress_bars
from torch import Tensor

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes

VOCABULARY, WIDTH, INNER, HEADS, POSITIONS = 160, 64, 96, 2, 32

State = dict[str, Tensor]

hf.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
enable_progress_bars()  # The line before disables those of huggingface_hub, too.


@dataclass(frozen=True)
class Architecture:
    """A model to build, and inputs for it.

    `build_base` builds the base, if it is of another class than the fine-tune. `same_names` is true if transformers
    saves the tensors under the names that they have in memory.
    """

    build: Callable[[], Any]
    inputs: Callable[[], dict[str, Tensor]]
    build_base: Callable[[], Any] | None = None
    same_names: bool = True


def _tokens() -> dict[str, Tensor]:
    return {"input_ids": torch.arange(3, 35).reshape(2, 16)}


def _pairs() -> dict[str, Tensor]:
    return {**_tokens(), "decoder_input_ids": torch.arange(40, 56).reshape(2, 8)}


def _images() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))}


def _sounds() -> dict[str, Tensor]:
    sound = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(3))
    return {"input_features": sound, "decoder_input_ids": torch.arange(40, 56).reshape(2, 8)}


def bert_config() -> Any:
    return hf.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=POSITIONS,
    )  # fmt: skip


def gpt2() -> Any:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_positions=POSITIONS, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return hf.GPT2LMHeadModel(config)


def llama() -> Any:
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, tie_word_embeddings=True,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config)


def t5() -> Any:
    config = hf.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=INNER, num_layers=2, num_heads=HEADS
    )
    config.decoder_start_token_id = 0
    return hf.T5ForConditionalGeneration(config)


def vit() -> Any:
    config = hf.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=INNER, image_size=32,
        patch_size=8,
    )  # fmt: skip
    return hf.ViTForImageClassification(config)


def resnet() -> Any:
    config = hf.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic")
    return hf.ResNetForImageClassification(config)


def mixtral() -> Any:
    config = hf.MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    return hf.MixtralForCausalLM(config)


def whisper() -> Any:
    config = hf.WhisperConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER, num_mel_bins=16,
        max_source_positions=POSITIONS, max_target_positions=POSITIONS, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration(config)


ARCHITECTURES = {
    "bert": Architecture(
        lambda: hf.BertForSequenceClassification(bert_config()), _tokens, lambda: hf.BertModel(bert_config())
    ),
    "gpt2": Architecture(gpt2, _tokens),
    "llama": Architecture(llama, _tokens),
    "t5": Architecture(t5, _pairs),
    "vit": Architecture(vit, _images, same_names=False),
    "resnet": Architecture(resnet, _images),
    "mixtral": Architecture(mixtral, _tokens, same_names=False),
    "whisper": Architecture(whisper, _sounds),
}


@dataclass
class Pair:
    """A base and a fine-tune of it, as models."""

    architecture: Architecture
    base: Any
    fine: Any


def make_pair(name: str, seed: int = 0) -> Pair:
    """Build an architecture's base and a fine-tune of it."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(seed)
    base = (architecture.build_base or architecture.build)().eval()
    fine = architecture.build().eval()
    fine.load_state_dict(start_from(base, fine))
    perturb(fine, seed + 1)
    return Pair(architecture, base, fine)


def start_from(base: Any, fine: Any) -> State:
    """Return the state of `fine` with the tensors of `base` in it; `fine` may wrap a model of the class of `base`."""
    start, result = base.state_dict(), dict(fine.state_dict())
    for name in result:
        source = name if name in start else name.partition(".")[2]
        if source in start:
            result[name] = start[source]
    return result


def perturb(model: Any, seed: int) -> None:
    """Change three of four parameters and all saved buffers, as training does: integer buffers are counters."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            if i % 4 != 3:
                parameter += delta_like(parameter, random)
        saved = model.state_dict().keys()
        for buffer in (buffer for name, buffer in model.named_buffers() if name in saved):
            if buffer.is_floating_point():
                buffer += 0.05 * torch.rand(buffer.shape, generator=random)
            else:
                buffer += 1000


def delta_like(tensor: Tensor, random: torch.Generator, rank: int = 2) -> Tensor:
    """Return a delta like that of training: a low-rank part, and a little noise in all elements."""
    scale = 0.3 * float(tensor.std()) if tensor.numel() > 1 and tensor.std() > 0 else 0.05
    noise = torch.randn(tensor.shape, generator=random)
    if tensor.ndim < 2:
        return scale * noise
    left = torch.randn(*tensor.shape[:-1], rank, generator=random)
    right = torch.randn(*tensor.shape[:-2], rank, tensor.shape[-1], generator=random)
    delta: Tensor = scale * (0.2 * noise + (left @ right) / math.sqrt(rank))
    return delta


# On disk


def save(model: Any, folder: Path) -> Path:
    """Save a model as transformers does."""
    model.save_pretrained(folder)
    return folder


def save_sharded(model: Any, folder: Path) -> Path:
    """Save a model as transformers does, in several files."""
    model.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").exists()
    return folder


def save_bin(model: Any, folder: Path) -> Path:
    """Save a model's state dict with `torch.save`, as training scripts do."""
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def read_all(source: Any) -> State:
    """Return all tensors of a checkpoint of any kind."""
    with open_checkpoint(source) as checkpoint:
        return {name: tensor_from_bytes(checkpoint.read(name), spec).clone() for name, spec in checkpoint.specs.items()}


def outputs(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return a model's logits."""
    with torch.inference_mode():
        logits: Tensor = model(**inputs).logits
    return logits
