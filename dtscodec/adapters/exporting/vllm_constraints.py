"""Constraints of vLLM 0.32 on adapters, from its documentation and source (`vllm/lora`). vLLM is not imported."""

from collections.abc import Iterable, Mapping
from typing import Any

from dtscodec.adapters.exporting.vllm_models import CLASSIFIER, lora_embeddings
from dtscodec.adapters.peft_names import PREFIX
from dtscodec.messages import listed

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `max_lora_rank`; the rank of every layer may be at most that."""

HEADS = ("classifier", "score")
"""The modules that an adapter may store as a whole."""

_TENSORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
_SKIPPED = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_OF_HEADS = tuple(f".{head}.{end}" for head in HEADS for end in ("weight", "bias"))
_LANGUAGE_MODELS = frozenset({"language_model", "text_model"})
"""Names of the language model in a model of images or sounds; the second is that of Idefics and SmolVLM."""


def max_lora_rank(rank: int) -> int | None:
    """Return vLLM's smallest `max_lora_rank` for a rank, or None if all are too small.

    Parameters
    ----------
    rank : int
        The largest rank of the adapter's layers.

    Examples
    --------
    >>> max_lora_rank(5), max_lora_rank(16), max_lora_rank(513)
    (8, 16, None)
    """
    return next((allowed for allowed in RANKS if allowed >= rank), None)


def is_embedding_refused(model: str, module: str, is_embedding: bool) -> bool:
    """Return whether vLLM refuses an adapter because it changes a certain embedding or language model head.

    Parameters
    ----------
    model : str
        Name of the model's class.
    module : str
        Name of the module.
    is_embedding : bool
        Whether the module is an embedding.
    """
    last = module.rpartition(".")[2]
    return (is_embedding or last == "lm_head") and last not in (lora_embeddings(model) or ())


def outside_language_model(modules: Iterable[str]) -> set[str]:
    """Return the modules outside a language model, to which vLLM applies no LoRA by default.

    Parameters
    ----------
    modules : iterable of str
        Names of modules of one model.

    Examples
    --------
    >>> outside_language_model(["model.language_model.layers.0.mlp.up_proj", "model.visual.merger", "lm_head"])
    {'model.visual.merger'}
    """
    parts = {module: module.split(".") for module in modules}
    if not any(_LANGUAGE_MODELS & {*names} for names in parts.values()):
        return set()
    return {module for module, names in parts.items() if not {*_LANGUAGE_MODELS, "lm_head"} & {*names}}


def is_head_refused(model: str, module: str) -> bool:
    """Return whether vLLM refuses an adapter because it stores a certain head as a whole.

    Parameters
    ----------
    model : str
        Name of the model's class.
    module : str
        Name of the module.
    """
    # RoBERTa's classifier consists of two layers, of which vLLM takes none.
    return module not in HEADS or not model.endswith(CLASSIFIER) or "Roberta" in model


def vllm_problems(
    document: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], model: str | None = None
) -> list[str]:
    """Return the reasons why vLLM would refuse an adapter or compute other outputs with it; empty if there are none.

    It is not checked that vLLM has a linear layer for each module. Some layers that are linear in transformers, such as
    BERT's pooler, are not in vLLM, which then ignores their LoRA.

    Parameters
    ----------
    document : mapping of str to Any
        The content of `adapter_config.json`.
    tensors : mapping of str to tuple of int
        Shapes of the adapter's tensors.
    model : str, optional
        Name of the model's class in transformers. Without it the constraints of its class are not checked.

    Examples
    --------
    >>> vllm_problems({"r": 8, "modules_to_save": ["norm"]}, {})
    ['modules_to_save other than classifier and score are not supported: norm']
    >>> vllm_problems({"r": 8}, {}, "GPT2LMHeadModel")
    ['LoRA is not supported for GPT2LMHeadModel']
    """
    rank = max([document["r"], *(document.get("rank_pattern") or {}).values()])
    problems = [*_model_problems(tensors, model), *_head_problems(document.get("modules_to_save") or [], model)]
    if max_lora_rank(rank) is None:
        problems.append(f"ranks above {RANKS[-1]} are not supported, got {rank}")
    if document.get("use_dora"):
        problems.append("DoRA is not supported")
    if document.get("bias", "none") != "none":
        problems.append("biases are not supported")
    # Tensors of modules_to_save with other names are reported above already.
    is_known = document.get("modules_to_save") or []
    unknown = [name for name in tensors if not name.endswith((*_TENSORS, *_SKIPPED, *(_OF_HEADS if is_known else ())))]
    if unknown and all(saved in HEADS for saved in is_known):
        problems.append(f"tensors such as {unknown[0]} are not supported")
    if any(len(shape) > 2 for name, shape in tensors.items() if name.endswith(_TENSORS)):
        problems.append("convolutions are not supported")
    return problems


def _model_problems(tensors: Mapping[str, tuple[int, ...]], model: str | None) -> list[str]:
    """Return the problems of a model's class."""
    if model is None:
        return []
    if lora_embeddings(model) is None:
        return [f"LoRA is not supported for {model}"]
    parts = {(name.removeprefix(PREFIX), end) for name in tensors for end in _TENSORS if name.endswith(end)}
    modules = {(name.removesuffix(end), "embedding" in end) for name, end in parts}
    refused = sorted(name for name, is_embedding in modules if is_embedding_refused(model, name, is_embedding))
    outside = sorted(outside_language_model(name for name, _ in modules))
    problems = {"LoRA of embeddings is not supported": refused, "LoRA is applied to the language model only": outside}
    return [f"{problem} for {model}: {listed(found, 3)}" for problem, found in problems.items() if found]


def _head_problems(saved: list[str], model: str | None) -> list[str]:
    """Return the problems of modules that are stored as a whole."""
    others = [name for name in saved if name not in HEADS]
    if others:
        heads = " and ".join(HEADS)
        return [f"modules_to_save other than {heads} are not supported: {listed(others, 3)}"]
    if len(saved) > 1:
        return [f"one of modules_to_save is supported, got {', '.join(saved)}"]
    if saved and model is not None and lora_embeddings(model) is not None and not model.endswith(CLASSIFIER):
        return [f"modules_to_save are not supported for {model}"]
    return []
