"""The model that a configuration describes: names of its tensors in memory and on disk, shapes and ties."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dtscodec.adapters.importing.model_config import ModelConfig
from dtscodec.adapters.model_layers import CONFIG, build_without_weights, tied_names
from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.errors import BackendError, CheckpointError
from dtscodec.evaluation.transformers_library import import_transformers, read_config
from dtscodec.evaluation.weight_conversions import locate_tensors

_TASKS = {
    "SEQ_CLS": "SEQUENCE_CLASSIFICATION",
    "TOKEN_CLS": "TOKEN_CLASSIFICATION",
    "QUESTION_ANS": "QUESTION_ANSWERING",
    "CAUSAL_LM": "CAUSAL_LM",
    "SEQ_2_SEQ_LM": "SEQ_TO_SEQ_CAUSAL_LM",
}
"""Tables of classes in transformers by PEFT's `task_type`."""


@dataclass(frozen=True, slots=True)
class ModelOutline:
    """A model without weights, and a checkpoint for it.

    Parameters
    ----------
    model : str
        Name of the model's class.
    shapes : mapping of str to tuple of int
        Shapes of its tensors, by their names in memory.
    ties : sequence of tuple of str
        Names in memory of tensors that are one tensor.
    embeddings : frozenset of str
        Names in memory of the embeddings' weights.
    disk_names : mapping of str to str
        Names in the checkpoint, by names in memory. Tensors that transformers makes from several have none.
    sources, targets : frozenset of str
        Tensors of the checkpoint that transformers joins, splits or transposes, and the model's that result.
    """

    model: str
    shapes: Mapping[str, tuple[int, ...]]
    ties: tuple[tuple[str, ...], ...]
    embeddings: frozenset[str]
    disk_names: Mapping[str, str]
    sources: frozenset[str]
    targets: frozenset[str]


def outline_model(config: ModelConfig, base: Specs) -> ModelOutline | None:
    """Return the outline of the model that a configuration describes; None if transformers cannot build it.

    Parameters
    ----------
    config : ModelConfig
        The configuration.
    base : mapping of str to TensorSpec
        The checkpoint's tensors.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes(config.to_bytes())
        try:
            model = build_without_weights(Path(folder))
        except (BackendError, CheckpointError):
            return None
    state = model.state_dict(keep_vars=True)
    located = locate_tensors(model, {name: spec.shape for name, spec in base.items()})
    modules = model.named_modules(remove_duplicate=False)
    return ModelOutline(
        type(model).__name__,
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        tuple(dict.fromkeys(names for names in tied_names(state).values() if len(names) > 1)),
        frozenset(f"{name}.weight" for name, module in modules if isinstance(module, nn.Embedding)),
        {memory: disk for disk, memory in located.renamed.items()},
        frozenset(name for group in located.groups for name in group.sources),
        frozenset(name for group in located.groups for name in group.targets),
    )


def untie(config: ModelConfig) -> ModelConfig:
    """Return the configuration of the same model with untied embeddings.

    The configuration does not change for models in which `tie_word_embeddings` has another meaning, such as T5:
    transformers does not tie tensors that differ in the checkpoint.

    Parameters
    ----------
    config : ModelConfig
        A configuration that transformers knows.
    """
    untied = config.untied()
    before, after = _attributes(config), _attributes(untied)
    differ = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} - {"_name_or_path"}
    return untied if differ and all(key.endswith("tie_word_embeddings") for key in differ) else config


def class_for_task(config: ModelConfig, task: str | None) -> str | None:
    """Return the class of transformers for PEFT's `task_type` and the type of a configuration; None if there is none.

    Parameters
    ----------
    config : ModelConfig
        The configuration.
    task : str or None
        PEFT's `task_type`.
    """
    if task not in _TASKS:
        return None
    import_transformers()
    from transformers.models.auto import modeling_auto

    names: Mapping[str, Any] = getattr(modeling_auto, f"MODEL_FOR_{_TASKS[task]}_MAPPING_NAMES")
    found = names.get(str(config.document.get("model_type")))
    return found[0] if isinstance(found, tuple) else found


def _attributes(config: ModelConfig) -> dict[str, Any]:
    """Return the attributes of a configuration of transformers, those of its parts with their paths."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes(config.to_bytes())
        return _flat(read_config(Path(folder)).to_dict())


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
