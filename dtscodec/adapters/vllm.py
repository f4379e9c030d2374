"""What vLLM takes of an adapter, as its documentation and source say (`vllm/lora`); vLLM itself is not run here."""

from collections.abc import Mapping
from typing import Any

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `max_lora_rank`; an adapter's rank may be at most that."""

_TENSORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
_SKIPPED = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")


def max_lora_rank(rank: int) -> int | None:
    """The smallest `max_lora_rank` for an adapter; None if its rank is beyond all of them.

    >>> max_lora_rank(5), max_lora_rank(16), max_lora_rank(513)
    (8, 16, None)
    """
    return next((allowed for allowed in RANKS if allowed >= rank), None)


def vllm_problems(document: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Why vLLM would refuse an adapter, or compute something else with it; empty if it would not.

    Whether the layers are such as vLLM changes in this model (linear ones, and embeddings where the model's class lists
    them) only vLLM knows.

    Parameters
    ----------
    document : mapping
        `adapter_config.json`.
    tensors : mapping
        Names and shapes.

    >>> vllm_problems({"r": 8, "modules_to_save": ["classifier"]}, {})
    ['modules_to_save are not taken']
    """
    problems = []
    if max_lora_rank(document["r"]) is None:
        problems.append(f"ranks up to {RANKS[-1]} are taken, not {document['r']}")
    if document.get("modules_to_save"):
        problems.append("modules_to_save are not taken")
    if document.get("use_dora"):
        problems.append("DoRA is not taken")
    if document.get("bias", "none") != "none":
        problems.append("biases are not taken")
    if document.get("rank_pattern") or document.get("alpha_pattern"):
        problems.append("patterns of ranks and alphas are ignored")
    strange = [name for name in tensors if not name.endswith((*_TENSORS, *_SKIPPED))]
    if strange and not document.get("modules_to_save"):
        problems.append(f"tensors such as {strange[0]} are not taken")
    if any(len(shape) > 2 for name, shape in tensors.items() if name.endswith(_TENSORS)):
        problems.append("convolutions are not taken")
    return problems
