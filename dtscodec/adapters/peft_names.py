"""Names of tensors in an adapter's file -> tensors of the model, and the part of the adapter that each is.

PEFT wraps modules, and its names contain the names of the wrappers:

| name after ``base_model.model.`` | part |
|---|---|
| ``M.lora_A.weight``, ``M.lora_B.weight`` | ``lora_A``, ``lora_B`` |
| ``M.lora_B.bias`` | ``lora_bias`` |
| ``M.lora_embedding_A``, ``M.lora_embedding_B`` | ``lora_embedding_A``, ``lora_embedding_B`` |
| ``M.weight``, ``M.modules_to_save.weight``, ``M.base_layer.bias`` | ``trained``: it replaces the model's tensor |
| ``M.base_layer.weight``, ``M.original_module.weight``, ``M.token_adapter.base_layer.weight`` | ``original``: as \
before the training |
| ``M.token_adapter.trainable_tokens_delta`` | ``tokens``: rows that replace those of some tokens |

The adapter's own name may follow the part, such as ``lora_A``, as in the state dict of a model in memory. Wrappers of
torch.compile, of data parallel training and of activation checkpointing are dropped.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dtscodec.checkpoints.names.canonical_names import WRAPPERS

Part: TypeAlias = Literal[
    "lora_A", "lora_B", "lora_bias", "lora_embedding_A", "lora_embedding_B", "trained", "original", "tokens"
]
"""Parts of an adapter, as in the table above."""

PREFIX = "base_model.model."
"""Prefix of all tensor names in an adapter of PEFT."""

_INTERNAL = re.compile(
    r"(?:^|\.)(?:lora_[^.]*|(?:trainable_)?tokens?_adapter|trainable_tokens_[^.]*|base_layer|modules_to_save"
    r"|original_module|parametrizations)(?:\.|$)"
)
"""Names that only PEFT and torch give to parts of a module. They are understood where `parse_name` expects them."""


@dataclass(frozen=True, slots=True)
class AdapterName:
    """A tensor of an adapter, by its name.

    Parameters
    ----------
    tensor : str
        Name of the model's tensor that it belongs to, as the model has it in memory.
    part : Part
        Its part, as in the table of this module.
    adapter : str or None
        The adapter's own name, if the name has it.
    """

    tensor: str
    part: Part
    adapter: str | None = None


def parse_name(name: str) -> AdapterName | None:
    """Parse the name of a tensor in an adapter's file.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    AdapterName or None
        None if it is not the name of a tensor of a plain LoRA of PEFT.

    Examples
    --------
    >>> parse_name("base_model.model.layers.0.q_proj.lora_A.default.weight")
    AdapterName(tensor='layers.0.q_proj.weight', part='lora_A', adapter='default')
    >>> parse_name("base_model.model._orig_mod.score.weight")
    AdapterName(tensor='score.weight', part='trained', adapter=None)
    """
    plain = _without_wrappers(name)
    if not plain.startswith(PREFIX):
        return None
    # The prefix stands there twice if a model that PEFT had wrapped was wrapped again.
    while plain.startswith(PREFIX):
        plain = _without_wrappers(plain.removeprefix(PREFIX))
    found = _parse(plain)
    return None if found is None or _INTERNAL.search(found.tensor) else found


def _without_wrappers(name: str) -> str:
    # A model may have a module of this name. DistributedDataParallel wraps a whole model, so it stands in front.
    parts = [part for part in name.split(".") if part == "module" or part not in WRAPPERS]
    while parts[:1] == ["module"]:
        parts = parts[1:]
    return ".".join(parts)


def _parse(name: str) -> AdapterName | None:
    if match := re.fullmatch(r"(.+)\.(lora_[AB])(?:\.([^.]+))?\.weight", name):
        return AdapterName(f"{match[1]}.weight", "lora_A" if match[2] == "lora_A" else "lora_B", match[3])
    if match := re.fullmatch(r"(.+)\.lora_B(?:\.([^.]+))?\.bias", name):
        return AdapterName(f"{match[1]}.bias", "lora_bias", match[2])
    if match := re.fullmatch(r"(.+)\.(lora_embedding_[AB])(?:\.([^.]+))?", name):
        is_a = match[2] == "lora_embedding_A"
        return AdapterName(f"{match[1]}.weight", "lora_embedding_A" if is_a else "lora_embedding_B", match[3])
    if match := re.fullmatch(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.([^.]+))?", name):
        return AdapterName(f"{match[1]}.weight", "tokens", match[2])
    if match := re.fullmatch(r"(.+?)\.(?:token_adapter\.base_layer|base_layer|original_module)\.(.+)", name):
        # Of the layers of a pair the weight is frozen; the bias is saved if it was trained.
        is_trained = ".base_layer." in name and match[2] != "weight"
        return AdapterName(f"{match[1]}.{match[2]}", "trained" if is_trained else "original")
    # The adapter's name, if any, is the component after `modules_to_save` that others follow.
    if match := re.fullmatch(r"(.+)\.modules_to_save\.(?:([^.]+)\.)?(.+)", name):
        return AdapterName(f"{match[1]}.{match[3]}", "trained", match[2])
    return AdapterName(name, "trained")
