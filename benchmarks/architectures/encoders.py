"""Encoders, encoder-decoders, and models of images and sounds."""

import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
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
    Inputs,
    noise,
    token_pairs,
    tokens,
)
from benchmarks.architectures.libraries import DIFFUSERS, SENTENCE_TRANSFORMERS, quiet

IMAGE, PATCH = 32, 8
TRANSFORMER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
}


def bert_config() -> Any:
    """The configuration of a small BERT."""
    return hf.BertConfig(**TRANSFORMER, vocab_size=VOCABULARY, max_position_embeddings=POSITIONS)


def modern_bert() -> nn.Module:
    """One projection of q, k and v; tied decoder with a bias of its own."""
    config = hf.ModernBertConfig(
        **TRANSFORMER, vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    return hf.ModernBertForMaskedLM(config)


def t5() -> nn.Module:
    """Shared embeddings, relative positions."""
    config = hf.T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=INNER, num_layers=LAYERS, num_heads=HEADS
    )  # fmt: skip
    config.decoder_start_token_id = 0
    return hf.T5ForConditionalGeneration(config)


def whisper() -> nn.Module:
    """Convolutions before an encoder; tied head."""
    config = hf.WhisperConfig(
        vocab_size=VOCABULARY, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER,
        num_mel_bins=16, max_source_positions=32, max_target_positions=32, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration(config)


def vit() -> nn.Module:
    """An image classifier."""
    return hf.ViTForImageClassification(hf.ViTConfig(**TRANSFORMER, image_size=IMAGE, patch_size=PATCH))


def unet() -> nn.Module:
    """A UNet with attention to a text."""
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(  # type: ignore[no-untyped-call]
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=WIDTH,
        attention_head_dim=8, norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return unet  # type: ignore[no-any-return]


def sentence_transformer() -> nn.Module:
    """A BERT, mean pooling, and a dense layer in a folder of its own."""
    from sentence_transformers import SentenceTransformer

    # By name: in version 6 the modules moved, and mypy does not find them in the old place.
    models: Any = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    with tempfile.TemporaryDirectory() as folder, quiet():
        hf.BertModel(bert_config(), add_pooling_layer=False).save_pretrained(folder)
        _save_tokenizer(Path(folder))
        transformer = models.Transformer(folder)
        dense = models.Dense(WIDTH, 32)
        model: nn.Module = SentenceTransformer(modules=[transformer, models.Pooling(WIDTH), dense], device="cpu")
    return model


def _save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of the words w0, w1, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words = [*special, *(f"w{i}" for i in range(VOCABULARY - len(special)))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder)


# Inputs of two rows


def images() -> Inputs:
    """Return two images."""
    return {"pixel_values": noise(2, 3, IMAGE, IMAGE)}


def sounds() -> Inputs:
    """Return two spectrograms, and tokens for the decoder."""
    return {"input_features": noise(2, 16, 64), "decoder_input_ids": token_pairs()["decoder_input_ids"]}


def noisy_images() -> Inputs:
    """Return two noisy latent images, their time steps and texts."""
    return {
        "sample": noise(2, 4, 16, 16),
        "timestep": torch.tensor([3, 11]),
        "encoder_hidden_states": noise(2, 5, WIDTH),
    }


def masked_tokens() -> Inputs:
    """Return two rows of tokens with their attention mask."""
    ids = tokens()["input_ids"]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


ENCODERS = (
    Architecture("T5", "encoder-decoder", t5, token_pairs, lora={"target_modules": ["q", "v", "wo"]}),
    Architecture("Whisper", "encoder-decoder", whisper, sounds, lora={"target_modules": ["q_proj", "v_proj", "fc1"]}),
    Architecture("ModernBERT", "encoder", modern_bert, tokens, lora={"target_modules": ["Wqkv", "Wo", "Wi"]}),
    Architecture(
        "BERT (classification)",
        "encoder",
        lambda: hf.BertForSequenceClassification(bert_config()),
        tokens,
        lambda: hf.BertModel(bert_config()),
        lora={"target_modules": ["query", "value"], "modules_to_save": ["classifier"]},
    ),
    Architecture(
        "ViT",
        "vision",
        vit,
        images,
        lora={"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]},
    ),
    Architecture(
        "UNet (diffusers)", "diffusion", unet, noisy_images, lora={"target_modules": ["to_q", "to_v", "conv1"]},
        library=DIFFUSERS,
    ),
    Architecture(
        "BERT with Dense (sentence-transformers)", "sentence embedding", sentence_transformer, masked_tokens,
        lora={"target_modules": ["query", "value"]}, library=SENTENCE_TRANSFORMERS,
    ),
)  # fmt: skip
