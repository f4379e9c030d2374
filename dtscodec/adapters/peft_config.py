"""Read and write `adapter_config.json`. Reading is strict: keys that could change the delta are known or refused."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dtscodec.errors import CheckpointError, Remedy

_Value = TypeVar("_Value")

CONFIG_NAME = "adapter_config.json"

HARMLESS = frozenset(
    {
        *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out"),
        *("base_model_name_or_path", "init_lora_weights", "bias", "modules_to_save", "target_modules"),
        *("exclude_modules", "layers_to_transform", "layers_pattern", "task_type", "auto_mapping", "peft_version"),
        *("revision", "inference_mode", "lora_dropout", "ensure_weight_tying", "runtime_config", "megatron_core"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
    }
)
"""Keys that are understood here, or that do not affect what a trained adapter computes."""
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base's weights unchanged; PiSSA, OLoRA and others change them."""
OFF: tuple[Any, ...] = (None, False, 0, {}, [], "")
"""Values with which any other key has no effect."""

MERGE_FIRST = Remedy("merge it with PEFT (merge_and_unload), save the result, and encode that")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Ranks and scales of a LoRA.

    Parameters
    ----------
    rank : int
        Rank of modules that no `rank_pattern` matches.
    alpha : float
        Alpha of modules that no `alpha_pattern` matches. The scale is alpha divided by the rank.
    rank_pattern, alpha_pattern : mapping
        Values by regular expression, which matches a module's name or the end of it after a dot. The first match
        counts.
    use_rslora : bool
        Whether alpha is divided by the square root of the rank instead.
    fan_in_fan_out : bool
        Whether layers hold their weights as [in, out], as GPT-2's do.
    base : str, optional
        Name or path of the base in the adapter's configuration.

    Raises
    ------
    ValueError
        A rank below 1, an alpha that is not finite, or a pattern that is no regular expression.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    base: str | None = None

    def __post_init__(self) -> None:
        for rank in (self.rank, *self.rank_pattern.values()):
            if rank < 1:
                raise ValueError(f"expected a rank of at least 1, got {rank}")
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            if not math.isfinite(alpha):
                raise ValueError(f"expected a finite alpha, got {alpha}")
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            _compiled(pattern)

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, given its name."""
        return _first_match(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Return the scale of a module, given its name: the factor on B A.

        Examples
        --------
        >>> LoraSettings(8, 16, {"q": 2}).scale_of("layers.0.q"), LoraSettings(4, 8, use_rslora=True).scale_of("v")
        (8.0, 4.0)
        """
        rank = self.rank_of(module)
        # alpha / r, or alpha / sqrt(r) in rank-stabilized LoRA.
        return _first_match(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)


def _first_match(pattern: Mapping[str, _Value], module: str, default: _Value) -> _Value:
    return next((value for key, value in pattern.items() if _compiled(key).fullmatch(module)), default)


def _compiled(key: str) -> "re.Pattern[str]":
    try:
        # The whole name, or the end of it after a dot.
        return re.compile(rf"(.*\.)?({key})")
    except re.error as error:
        raise ValueError(f"expected a regular expression, got {key!r:.60}: {error}") from error


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
        raise CheckpointError(f"expected an adapter of peft_type 'LORA', got {kind!r:.60}", MERGE_FIRST)
    start = document.get("init_lora_weights", True)
    # With such an initialization B A is added to weights other than the base's.
    if start not in PLAIN_INITS:
        detail = "expected init_lora_weights that leave the base's weights unchanged"
        raise CheckpointError(f"{detail}, got {start!r:.60}", MERGE_FIRST)
    # Refuse a key that is unknown unless it is off, since it may change what the adapter computes.
    for key, value in document.items():
        if key not in HARMLESS and value not in OFF:
            raise CheckpointError(f"expected a plain LoRA, got one with {key!r:.60}: {value!r:.60}", MERGE_FIRST)


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


def _checked(value: object, key: str, kind: type) -> Any:
    """Return a value as an integer, or for alphas as any number; JSON's true is not taken for 1."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ValueError(f"expected a number for {key!r}, got {value!r:.60}")
    return kind(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
