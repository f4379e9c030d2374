"""Constraints of vLLM on adapters, from its documentation and source (`vllm/lora`). vLLM is not imported."""

from collections.abc import Mapping
from typing import Any

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `max_lora_rank`; an adapter's rank may be at most that."""

_TENSORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
_SKIPPED = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")


def max_lora_rank(rank: int) -> int | None:
    """Return vLLM's smallest `max_lora_rank` for a rank, or None if all are too small.

    Parameters
    ----------
    rank : int
        The adapter's rank.

    Examples
    --------
    >>> max_lora_rank(5), max_lora_rank(16), max_lora_rank(513)
    (8, 16, None)
    """
    return next((allowed for allowed in RANKS if allowed >= rank), None)


def vllm_problems(document: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the reasons why vLLM would refuse an adapter or compute other outputs with it; empty if there are none.

    Not checked: vLLM supports LoRA in linear layers, and in embeddings if the model's class lists them.

    Parameters
    ----------
    document : mapping of str to Any
        The content of `adapter_config.json`.
    tensors : mapping of str to tuple of int
        Shapes of the adapter's tensors.

    Examples
    --------
    >>> vllm_problems({"r": 8, "modules_to_save": ["classifier"]}, {})
    ['modules_to_save are not supported']
    """
    problems = []
    if max_lora_rank(document["r"]) is None:
        problems.append(f"ranks above {RANKS[-1]} are not supported, got {document['r']}")
    if document.get("modules_to_save"):
        problems.append("modules_to_save are not supported")
    if document.get("use_dora"):
        problems.append("DoRA is not supported")
    if document.get("bias", "none") != "none":
        problems.append("biases are not supported")
    if document.get("rank_pattern") or document.get("alpha_pattern"):
        problems.append("patterns of ranks and alphas are ignored")
    # Tensors of modules_to_save are reported above already.
    unknown = [name for name in tensors if not name.endswith((*_TENSORS, *_SKIPPED))]
    if unknown and not document.get("modules_to_save"):
        problems.append(f"tensors such as {unknown[0]} are not supported")
    if any(len(shape) > 2 for name, shape in tensors.items() if name.endswith(_TENSORS)):
        problems.append("convolutions are not supported")
    return problems
