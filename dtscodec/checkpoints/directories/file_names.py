"""Names of weight files as frameworks give them: stems, variants, shards and their indexes."""

import re
from pathlib import PurePosixPath

from dtscodec.format.naming import is_shard_index
from dtscodec.format.weight_files import DEFAULT_STEM, VARIANT_STEMS, is_valid_stem

ADAPTER_CONFIG = "adapter_config.json"
"""Configuration of PEFT's adapters. Without their weights it prevents transformers from loading the model."""

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Weights of an adapter of PEFT, which is no model; as it saves them now, and as it did before."""

TRANSFORMERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weight files in the order in which transformers looks for them (`_get_resolved_checkpoint_files`)."""

DIFFUSERS = (
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
"""Weight files in the order in which diffusers looks for them (`ModelMixin.from_pretrained`)."""

TORCH_ENDINGS = (".bin", ".pt", ".pth")
"""Endings of files written by `torch.save`."""

SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
"""The part of a shard's name that numbers it."""

_STEM = "(?:model|pytorch_model|diffusion_pytorch_model)"
_ENDING = r"\.(?:safetensors|bin)"
_VARIANTS = (
    re.compile(rf"{_STEM}\.(?P<variant>[^/]+){_ENDING}"),
    re.compile(rf"{_STEM}{_ENDING}\.index\.(?P<variant>[^/]+)\.json"),
    # As diffusers named them until 0.31.
    re.compile(rf"{_STEM}{_ENDING}\.(?P<variant>[^/]+)\.index\.json"),
)


def variant_of(name: str) -> str | None:
    """Return the variant of a weight file, or of an index; None for files without one, and for shards.

    >>> variant_of("model.fp16.safetensors"), variant_of("diffusion_pytorch_model.safetensors.index.fp16.json")
    ('fp16', 'fp16')
    >>> variant_of("model.safetensors"), variant_of("model.fp16-00001-of-00002.safetensors")
    (None, None)
    """
    if SHARD.search(name):
        return None
    found = next((match for pattern in _VARIANTS if (match := pattern.fullmatch(name))), None)
    return found["variant"] if found else None


def stem_of(name: str) -> str:
    """Return the stem with which a checkpoint is restored that was read from a file, or an index, of this name.

    It is `DEFAULT_STEM` if the name has no valid one, or is that of a file of torch, which is restored as safetensors.

    >>> stem_of("diffusion_pytorch_model.safetensors"), stem_of("model.safetensors.index.fp16.json")
    ('diffusion_pytorch_model', 'model.fp16')
    >>> stem_of("pytorch_model.bin.index.json"), stem_of("consolidated.safetensors")
    ('model', 'consolidated')
    """
    variant = variant_of(name)
    # What precedes the first dot of a variant; the name without its endings otherwise.
    stem = name.split(".")[0] if variant else _without_endings(name)
    stem = DEFAULT_STEM if stem == "pytorch_model" else stem
    stem = f"{stem}.{variant}" if variant else stem
    return stem if is_valid_stem(stem) else DEFAULT_STEM


def usual_stem(name: str) -> str:
    """Return the stem of a file that was named by itself: `DEFAULT_STEM` unless a framework looks for its name.

    >>> usual_stem("diffusion_pytorch_model.fp16.safetensors"), usual_stem("my-model.safetensors")
    ('diffusion_pytorch_model.fp16', 'model')
    """
    stem = stem_of(name)
    return stem if stem.split(".")[0] in (*VARIANT_STEMS, "consolidated") else DEFAULT_STEM


def _without_endings(name: str) -> str:
    if is_shard_index(name):
        name = name[: name.index(".index.")]
    path = PurePosixPath(SHARD.sub("", name))
    return path.stem if path.suffix in (".safetensors", ".ckpt", *TORCH_ENDINGS) else path.name
