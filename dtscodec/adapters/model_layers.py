"""The layers of a model that an adapter may change, found by what they are, not by their names."""

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
from dtscodec.evaluation.transformers_library import quiet_transformers, transformers_errors
from dtscodec.evaluation.weight_loading import model_class_of, read_config
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import CarriedFile
from dtscodec.packs.pack import Pack

CONFIG = "config.json"
NAME_MODEL = Remedy("name a directory with the configuration of the model that uses the adapter ({model})")
NAME_BASE_OR_MODEL = Remedy(f"name it with {{base}}, or {NAME_MODEL.text}")


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """What an adapter has to know of a model.

    Parameters
    ----------
    model : str
        Name of its class.
    kinds : mapping
        Layers that a LoRA may change, by module.
    modules : frozenset of str
        All modules.
    leaves : mapping
        Names of the tensors of each module that holds no other modules.
    sharing : mapping
        For each parameter's name the names of all that are the same parameter, itself with them.
    specs : mapping
        Shapes of all tensors; dtypes do not matter.
    """

    model: str
    kinds: Mapping[str, LayerKind]
    modules: frozenset[str]
    leaves: Mapping[str, tuple[str, ...]]
    sharing: Mapping[str, tuple[str, ...]]
    specs: Mapping[str, TensorSpec]

    @classmethod
    def of(cls, model: nn.Module) -> "ModelLayers":
        """The layers of a model, whose tensors may be on the meta device."""
        modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        state = model.state_dict(keep_vars=True)
        same: dict[int, list[str]] = defaultdict(list)
        for name, tensor in state.items():
            same[id(tensor)].append(name)
        return cls(
            type(model).__name__,
            {name: kind for name, module in modules.items() if (kind := layer_kind(module))},
            frozenset(modules),
            {name: _own(name, module) for name, module in modules.items() if not [*module.children()]},
            {name: tuple(same[id(tensor)]) for name, tensor in state.items()},
            {name: TensorSpec("U8", tuple(tensor.shape)) for name, tensor in state.items()},
        )


def layer_kind(module: nn.Module) -> LayerKind | None:
    """The kind of a layer that a LoRA may change; None for any other module."""
    if isinstance(module, nn.Linear):
        return "linear"
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # Of transformers, which need not be there.
        return "transposed"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1:
        return "convolution"
    return None


def _own(name: str, module: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}.{tensor}" for tensor in module.state_dict())


def read_model_layers(model: "nn.Module | str | Path | None", pack: Pack, base: Base | None) -> ModelLayers:
    """The layers of a model that is at hand, or that a configuration describes.

    Parameters
    ----------
    model : Module, path or None
        The model; a directory with its configuration; by default the configuration that travels with the pack.
    pack : Pack
    base : Base, optional
        Beside which the configuration may lie.

    Raises
    ------
    CheckpointError
        There is no configuration, or it describes no model of transformers.
    BackendError
        The package transformers is not there.
    """
    if isinstance(model, nn.Module):
        return ModelLayers.of(model)
    if model is not None:
        return ModelLayers.of(_built(Path(model)))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes(_configuration(pack, base))
        return ModelLayers.of(_built(Path(folder)))


def _built(directory: Path) -> nn.Module:
    """The model that a configuration describes, without its weights."""
    config = read_config(directory)
    kind = model_class_of(config, str(directory / CONFIG), NAME_MODEL)
    with (
        quiet_transformers(),
        torch.device("meta"),
        transformers_errors(str(directory / CONFIG), f"one of a {kind.__name__}"),
    ):
        model: nn.Module = kind(config)
    return model


def _configuration(pack: Pack, base: Base | None) -> bytes:
    """The configuration that travels with a pack, in it or beside the base."""
    entry = next((file for file in pack.index.files if file.name == CONFIG), None)
    if entry is None:
        raise CheckpointError(f"{pack.path or 'pack'}: expected a pack with {CONFIG}, got one without", NAME_MODEL)
    if isinstance(entry, CarriedFile):
        return pack.reader.file(entry)
    if base is None:
        detail = f"expected the base, whose {CONFIG} is that of the pack, got none"
        raise CheckpointError(f"{pack.path or 'pack'}: {detail}", NAME_BASE_OR_MODEL)
    return restore_files([Named(entry.name, entry.digest)], base.checkpoint.directory)[CONFIG]
