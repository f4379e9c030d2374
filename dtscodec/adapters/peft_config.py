"""Read and write `adapter_config.json`. Reading is strict: keys that could change the delta are known or refused."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dtscodec.adapters.lora_settings import LoraSettings
from dtscodec.errors import CheckpointError, Remedy

HARMLESS = frozenset(
    {
        *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out"),
        *("base_model_name_or_path", "init_lora_weights", "bias", "modules_to_save", "target_modules"),
        *("exclude_modules", "layers_to_transform", "layers_pattern", "task_type", "auto_mapping", "peft_version"),
        *("revision", "inference_mode", "lora_dropout", "ensure_weight_tying", "runtime_config", "megatron_core"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
        # The first is one of versions before 0.3, the last matters to training only.
        *("merge_weights", "trainable_token_indices", "lora_bias", "velora_config"),
    }
)
"""Keys that are understood here, or that do not affect what a trained adapter computes."""
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base's weights unchanged; PiSSA, OLoRA and others change them."""
OFF: tuple[Any, ...] = (None, False, 0, {}, [], "")
"""Values with which any other key has no effect."""

MERGE_FIRST = Remedy("merge it with PEFT (merge_and_unload), save the result, and encode that")
_MERGE_STATE = Remedy("merge it with PEFT (merge_and_unload), and encode the merged model's `state_dict()`")
_CONVERT = Remedy("save it as a plain LoRA where it was trained (path_initial_model_for_weight_conversion of PEFT)")
"""For weights that PEFT itself cannot compute again from adapter and base."""
SERVE_WITH_PEFT = Remedy("serve it with PEFT, since no change of weights amounts to it")

_UNMERGEABLE_TYPES = frozenset(
    {
        *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
        *("ADAPTION_PROMPT", "POLY", "XLORA"),
    }
)
"""Values of `peft_type` that PEFT cannot merge: they change inputs or activations, or choose among adapters."""

_UNMERGEABLE_KEYS = frozenset({"alora_invocation_tokens", "arrow_config", "use_qalora", "use_bdlora"})
"""Keys of variants of LoRA that PEFT cannot merge."""


def parse_settings(data: bytes, where: str) -> LoraSettings:
    """Parse a configuration; the inverse of `settings_document`, whose scales are 1.

    Parameters
    ----------
    data : bytes
        The file's content, JSON.
    where : str
        Path of the file, for messages.

    Returns
    -------
    LoraSettings
        Ranks and scales.

    Raises
    ------
    CheckpointError
        It is malformed, or not that of a plain LoRA.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError(f"expected an object, got {document!r:.60}")
        _check_plain(document)
        return LoraSettings(
            _number(document, "r", int),
            _number(document, "lora_alpha", float),
            _pattern(document, "rank_pattern", int),
            _pattern(document, "alpha_pattern", float),
            bool(document.get("use_rslora")),
            bool(document.get("fan_in_fan_out")),
            _text(document.get("base_model_name_or_path")),
            _names(document, "modules_to_save"),
            bool(document.get("ensure_weight_tying")),
            _token_indices(document),
            _text(document.get("task_type")),
            _model_class(document.get("auto_mapping")),
        )
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error.problem}", error.remedy) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def settings_document(
    ranks: Mapping[str, int],
    *,
    base: str | None,
    task_type: str | None,
    target_modules: Sequence[str],
    modules_to_save: Sequence[str],
    has_biases: bool,
    fan_in_fan_out: bool,
) -> dict[str, Any]:
    """Return a configuration with a scale of 1 for all modules; the inverse of `parse_settings`.

    `r` is the largest rank and equals `lora_alpha`, so that readers that ignore patterns apply the right scale, too.

    Parameters
    ----------
    ranks : mapping of str to int
        Rank of each module.
    base : str or None
        PEFT's `base_model_name_or_path`.
    task_type : str or None
        PEFT's `task_type`; with one, PEFT wraps the model in a class for the task.
    target_modules : sequence of str
        Names, or last parts of names, of the layers that the adapter changes.
    modules_to_save : sequence of str
        Names of the modules that the adapter stores as a whole.
    has_biases : bool
        Whether the adapter stores biases of layers that it changes.
    fan_in_fan_out : bool
        Whether layers hold their weights as [in, out].
    """
    largest = max(ranks.values())
    # Whole names, since PEFT would match the ends of longer ones, too. Alpha equals the rank, so the scale is 1.
    pattern = {f"^{re.escape(module)}": rank for module, rank in sorted(ranks.items()) if rank < largest}
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": list(target_modules),
        "modules_to_save": list(modules_to_save) or None,
        "bias": "lora_only" if has_biases else "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "lora_dropout": 0.0,
    }


def _check_plain(document: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless an adapter adds B A to weights and changes them in no other way."""
    kind = document.get("peft_type")
    if kind != "LORA":
        remedy = SERVE_WITH_PEFT if kind in _UNMERGEABLE_TYPES else MERGE_FIRST
        raise CheckpointError(f"expected an adapter of peft_type 'LORA', got {kind!r:.60}", remedy)
    start = document.get("init_lora_weights", True)
    # With any other initialization, B A is added to weights that are not the base's.
    if start not in PLAIN_INITS:
        detail = "expected init_lora_weights that leave the base's weights unchanged"
        # PEFT computes the weights again when it loads the adapter; not all of these computations give the same.
        raise CheckpointError(f"{detail}, got {start!r:.60}", MERGE_FIRST if start in ("pissa", "olora") else _CONVERT)
    # Refuse a key that is unknown unless it is off, since it may change what the adapter computes.
    for key, value in document.items():
        if key not in HARMLESS and value not in OFF:
            remedy = SERVE_WITH_PEFT if key in _UNMERGEABLE_KEYS else MERGE_FIRST
            # The layers share tensors, which transformers does not save.
            remedy = _MERGE_STATE if key == "layer_replication" else remedy
            raise CheckpointError(f"expected a plain LoRA, got one with {key!r:.60}: {value!r:.60}", remedy)


def _number(document: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in document:
        problem = f"expected the key {key!r}, got none"
        raise CheckpointError(problem, Remedy("use the configuration that PEFT saved"))
    return _checked(document[key], key, kind)


def _pattern(document: Mapping[str, Any], key: str, kind: type) -> dict[str, Any]:
    pattern = document.get(key) or {}
    if not isinstance(pattern, dict):
        raise ValueError(f"expected an object for {key!r}, got {pattern!r:.60}")
    return {name: _checked(value, key, kind) for name, value in pattern.items()}


def _names(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = document.get(key) or ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of names for {key!r}, got {names!r:.60}")
    return tuple(names)


def _token_indices(document: Mapping[str, Any]) -> Sequence[int] | Mapping[str, Sequence[int]]:
    found = document.get("trainable_token_indices") or ()
    if isinstance(found, dict):
        return {name: _indices(indices) for name, indices in found.items()}
    return _indices(found)


def _indices(found: object) -> tuple[int, ...]:
    if not isinstance(found, list | tuple) or not all(isinstance(index, int) and index >= 0 for index in found):
        raise ValueError(f"expected a list of token numbers for 'trainable_token_indices', got {found!r:.60}")
    if len(set(found)) < len(found):
        raise ValueError("expected each token number once in 'trainable_token_indices', got one again")
    return tuple(found)


def _checked(value: object, key: str, kind: type) -> Any:
    """Return a value as an integer, or for alphas as any number; JSON's true is not taken for 1."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ValueError(f"expected a number for {key!r}, got {value!r:.60}")
    return kind(value)


def _model_class(auto_mapping: object) -> str | None:
    return _text(auto_mapping.get("base_model_class")) if isinstance(auto_mapping, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
