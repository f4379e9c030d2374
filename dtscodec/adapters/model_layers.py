"""The layers and tensors of the model that uses an adapter, by the names that they have in memory."""

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dtscodec.adapters.layer_kinds import lora_layers
from dtscodec.adapters.lora_pair import LayerKind
from dtscodec.adapters.module_names import ModuleNames, match_module_names
from dtscodec.checkpoints.auxiliary_file import read_auxiliary_file
from dtscodec.checkpoints.auxiliary_files import restore_files
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Specs
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
    task : str or None
        PEFT's `task_type` of a language model; None for others. That of a classifier depends on the adapter's content.
    kinds : mapping of str to LayerKind
        Kinds of the modules that a LoRA can change, by name.
    refused : mapping of str to str
        Modules of these kinds that PEFT cannot change in this model, with the reason.
    modules : frozenset of str
        Names of all modules.
    sharing : mapping of str to tuple of str
        For each tensor all names of the same tensor, its own included.
    specs : mapping of str to TensorSpec
        Shapes of all tensors. Their dtypes are meaningless.
    names : ModuleNames
        The model's names of the fine-tune's tensors.
    base_names : ModuleNames or None
        The model's names of the base's tensors, if the base is known.
    """

    model: str
    task: str | None
    kinds: Mapping[str, LayerKind]
    refused: Mapping[str, str]
    modules: frozenset[str]
    sharing: Mapping[str, tuple[str, ...]]
    specs: Mapping[str, TensorSpec]
    names: ModuleNames
    base_names: ModuleNames | None = None

    @classmethod
    def of(cls, model: nn.Module, fine: Specs, base: Specs | None = None) -> "ModelLayers":
        """Collect the layers of a model.

        Parameters
        ----------
        model : nn.Module
            The model. Its tensors may be on the meta device.
        fine, base : mapping
            Specs of the fine-tune and of the base, by name.

        Raises
        ------
        EncodeError
            Two prefixes fit the names of one of them equally well.
        """
        modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        state = model.state_dict(keep_vars=True)
        kinds, refused = lora_layers(model)
        return cls(
            type(model).__name__,
            _language_task(model),
            kinds,
            refused,
            frozenset(modules),
            tied_names(state),
            {name: TensorSpec("U8", tuple(tensor.shape)) for name, tensor in state.items()},
            match_module_names(model, fine),
            None if base is None else match_module_names(model, base),
        )


def tied_names(state: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Return for each tensor of a model all names of the same tensor, its own included.

    Parameters
    ----------
    state : mapping of str to Tensor
        The model's `state_dict(keep_vars=True)`, in which tied tensors are one object under several names.
    """
    names: dict[int, list[str]] = defaultdict(list)
    for name, tensor in state.items():
        names[id(tensor)].append(name)
    return {name: tuple(names[id(tensor)]) for name, tensor in state.items()}


def _language_task(model: nn.Module) -> str | None:
    """Return PEFT's `task_type` of a language model. PEFT then passes it arguments that speech models do not take."""
    name, config = type(model).__name__, getattr(model, "config", None)
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    is_translator = (
        getattr(config, "is_encoder_decoder", False) and getattr(model, "main_input_name", "") == "input_ids"
    )
    return "SEQ_2_SEQ_LM" if name.endswith("ForConditionalGeneration") and is_translator else None


def read_model_layers(model: "nn.Module | str | Path | None", pack: Pack, base: Base | None) -> ModelLayers:
    """Read the layers of a model, or of one that a configuration describes.

    Parameters
    ----------
    model : Module, path or None
        The model, or a directory with its configuration. By default the configuration among the pack's auxiliary files.
    pack : Pack
        The pack that is exported.
    base : Base or None
        The base, to whose configuration the pack may refer.

    Raises
    ------
    CheckpointError
        There is no configuration, or transformers does not know its model.
    BackendError
        The package transformers is missing or too old.
    """
    specs = {entry.name: entry.spec for entry in pack.index.tensors}
    base_specs = base.specs if base else None
    if isinstance(model, nn.Module):
        return ModelLayers.of(model, specs, base_specs)
    if model is not None:
        if not (Path(model) / CONFIG).is_file():
            raise CheckpointError(f"{model}: expected a directory with {CONFIG}, got none", NAME_CONFIGURATION)
        return ModelLayers.of(build_without_weights(Path(model)), specs, base_specs)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes(_read_configuration(pack, base))
        location = f"{pack.path or 'pack'}: {CONFIG}"
        return ModelLayers.of(build_without_weights(Path(folder), location), specs, base_specs)


def build_without_weights(directory: Path, location: str | None = None) -> nn.Module:
    """Build the model that a configuration describes, its tensors on the meta device.

    Parameters
    ----------
    directory : Path
        The directory with the configuration.
    location : str, optional
        Name of the configuration, for messages; by default its path.
    """
    location = location or str(directory / CONFIG)
    config = read_config(directory, location, Remedy("in Python, give the model itself as {model}"))
    kind = model_class_of(config, location, NAME_CONFIGURATION)
    with (
        quiet_transformers(),
        # Shapes only: weights take no memory.
        torch.device("meta"),
        transformers_errors(location, f"one of a {kind.__name__}"),
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
    if base is None and not isinstance(entry, CarriedFile):
        detail = f"expected the base, since the pack refers to its {CONFIG}, got none"
        raise CheckpointError(f"{pack.path or 'pack'}: {detail}", NAME_BASE_OR_MODEL)
    return restore_files([read_auxiliary_file(pack.reader, entry)], base.checkpoint.directory if base else None)[CONFIG]
