"""A cache of a random Llama of a few thousand weights and a handful of texts: the whole code runs on it in seconds."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from benchmarks.language.texts import SOURCES, exercise

PIECES = {"train": 24, "calibration": 12, "test": 24}
LINES = 3
"""Exercises in a piece of text."""


def fill_cache(cache: Path) -> None:
    """Put a tiny base and texts where `base_directory` and `load_texts` look for them; fine-tunes are trained on these.

    Parameters
    ----------
    cache : Path
        An empty folder.
    """
    _save_base(cache / "base")
    (cache / "texts").mkdir()
    for seed, name in enumerate(SOURCES):
        generator = random.Random(seed)
        texts = {side: [_piece(generator) for _ in range(count)] for side, count in PIECES.items()}
        (cache / "texts" / f"{name}.json").write_text(json.dumps(texts))


def _piece(generator: random.Random) -> str:
    return "\n".join(exercise(generator) for _ in range(LINES))


def _save_base(directory: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _byte_tokenizer() -> Any:
    """Return a tokenizer with a token for each byte, and one for the end of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    end = "<|end|>"
    tokens.add_special_tokens([end])
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=tokens, eos_token=end, pad_token=end)
