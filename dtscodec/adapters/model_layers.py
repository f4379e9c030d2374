"""The layers of a model that an adapter can change, found by their classes, not by their names."""

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dtscodec.adapters.lora_pair import LayerKind
from dtscodec.checkpoints.auxiliary_files import Named, restore_files
from dtscodec.checkpoints.base import Base
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.transformers_library import (
    model_class_of,
    quiet_transformers,
    read_config,
    transformers_errors,
)
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import CarriedFile
from dtscodec.packs.pack import Pack

CONFIG = "config.json"
"""File of a model's configuration, in model directories and among auxiliary files."""
NAME_CONFIGURATION = Remedy("name a directory with the configuration of the model that uses the adapter ({model})")
NAME_BASE_OR_MODEL = Remedy(f"name it with {{base}}, or {NAME_CONFIGURATION.text}")


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """Layers and tensors of a model that an export can change.

    Parameters
    ----------
    model : str
        Name of the model's class.
    kinds : mapping of str to LayerKind
        Kinds of the modules that a LoRA can change, by name.
    modules : frozenset of str
        Names of all modules.
    leaves : mapping of str to tuple of str
        For each module without children the names of its tensors.
    sharing : mapping of str to tuple of str
        For each tensor all names of the same tensor, its own included.
    specs : mapping of str to TensorSpec
        Shapes of all tensors. Their dtypes are meaningless.
    """

    model: str
    kinds: Mapping[str, LayerKind]
    modules: frozenset[str]
    leaves: Mapping[str, tuple[str, ...]]
    sharing: Mapping[str, tuple[str, ...]]
    specs: Mapping[str, TensorSpec]

    @classmethod
    def of(cls, model: nn.Module) -> "ModelLayers":
        """Collect the layers of a model.

        Parameters
        ----------
        model : nn.Module
            The model. Its tensors may be on the meta device.
        """
        modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        state = model.state_dict(keep_vars=True)
        # Tied tensors are one object under several names.
        same: dict[int, list[str]] = defaultdict(list)
        for name, tensor in state.items():
            same[id(tensor)].append(name)
        return cls(
            type(model).__name__,
            {name: kind for name, module in modules.items() if (kind := lora_layer_kind(module))},
            frozenset(modules),
            {name: _tensor_names(name, module) for name, module in modules.items() if not [*module.children()]},
            {name: tuple(same[id(tensor)]) for name, tensor in state.items()},
            {name: TensorSpec("U8", tuple(tensor.shape)) for name, tensor in state.items()},
        )


def lora_layer_kind(module: nn.Module) -> LayerKind | None:
    """Return the kind of a layer that a LoRA can change.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    LayerKind or None
        None if a LoRA cannot change the module.
    """
    if isinstance(module, nn.Linear):
        return "linear"
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # By name, since transformers may not be installed.
        return "transposed"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1:
        return "convolution"
    return None


def _tensor_names(name: str, module: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}.{tensor}" for tensor in module.state_dict())


def read_model_layers(model: "nn.Module | str | Path | None", pack: Pack, base: Base | None) -> ModelLayers:
    """Read the layers of a model, or of one that a configuration describes.

    Parameters
    ----------
    model : Module, path or None
        The model, or a directory with its configuration. By default the configuration among the pack's auxiliary files.
    pack : Pack
        The pack that is exported.
    base : Base or None
        The base, in whose directory the configuration is if the pack has its digest only.

    Raises
    ------
    CheckpointError
        There is no configuration, or transformers does not know its model.
    BackendError
        The package transformers is missing or too old.
    """
    if isinstance(model, nn.Module):
        return ModelLayers.of(model)
    if model is not None:
        return ModelLayers.of(_build_without_weights(Path(model)))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes(_read_configuration(pack, base))
        return ModelLayers.of(_build_without_weights(Path(folder)))


def _build_without_weights(directory: Path) -> nn.Module:
    """Build the model that a configuration describes, its tensors on the meta device."""
    config = read_config(directory)
    kind = model_class_of(config, str(directory / CONFIG), NAME_CONFIGURATION)
    with (
        quiet_transformers(),
        # Shapes only: weights take no memory.
        torch.device("meta"),
        transformers_errors(str(directory / CONFIG), f"one of a {kind.__name__}"),
    ):
        model: nn.Module = kind(config)
    return model


def _read_configuration(pack: Pack, base: Base | None) -> bytes:
    """Return the configuration among a pack's auxiliary files, from the pack or from the base's directory."""
    entry = next((file for file in pack.index.files if file.name == CONFIG), None)
    if entry is None:
        raise CheckpointError(
            f"{pack.path or 'pack'}: expected a pack with {CONFIG}, got one without", NAME_CONFIGURATION
        )
    if isinstance(entry, CarriedFile):
        return pack.reader.file(entry)
    if base is None:
        detail = f"expected the base, since the pack has the digest of its {CONFIG} only, got none"
        raise CheckpointError(f"{pack.path or 'pack'}: {detail}", NAME_BASE_OR_MODEL)
    return restore_files([Named(entry.name, entry.digest)], base.checkpoint.directory)[CONFIG]
