"""The reasons why an adapter cannot carry a change as a LoRA."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from dtscodec.adapters.exporting.left_out_changes import Obstacle
from dtscodec.adapters.exporting.tensor_changes import TensorChange
from dtscodec.adapters.exporting.vllm_constraints import is_embedding_refused, outside_language_model
from dtscodec.adapters.exporting.whole_modules import enclosing, head_modules
from dtscodec.adapters.model_layers import ModelLayers
from dtscodec.errors import Remedy

AdapterTarget: TypeAlias = Literal["peft", "vllm"]
"""The program that an adapter is for."""

NAME_FINE_TUNE = Remedy("name the fine-tune's model ({model})")
"""For every error about a model that is not the fine-tune's."""


def has_own_base(name: str, change: TensorChange, layers: ModelLayers) -> bool:
    """Return whether a change is encoded against the model's own tensor, rather than against another one.

    Parameters
    ----------
    name : str
        Name of the changed tensor in the model.
    change : TensorChange
        The change.
    layers : ModelLayers
        Layers of the model.
    """
    # Without the base, its names can only be those of the pack.
    theirs = (layers.base_names or layers.names).names.get(change.counterpart, name)
    return change.is_aligned and (theirs == name or theirs not in layers.specs)


def find_obstacle(
    name: str, change: TensorChange, modules: Sequence[str], layers: ModelLayers, to: AdapterTarget
) -> Obstacle | None:
    """Find the reason why a LoRA cannot carry a change.

    Parameters
    ----------
    name : str
        Name of the changed tensor in the model.
    change : TensorChange
        The change.
    modules : sequence of str
        The modules that would carry it: all that share the tensor.
    layers : ModelLayers
        Layers of the model.
    to : {"peft", "vllm"}
        The program that the adapter is for.

    Returns
    -------
    Obstacle or None
        None if a LoRA can carry it.
    """
    if change.entry.name in layers.names.converted:
        return Obstacle("transformers stacks or joins it with others in memory", change)
    if name not in layers.specs or layers.specs[name].shape != change.entry.spec.shape:
        return Obstacle(f"no such tensor in {layers.model}, the model that uses the adapter", change, NAME_FINE_TUNE)
    if change.delta is None:
        return Obstacle(change.how, change)
    if not has_own_base(name, change, layers):
        return Obstacle("encoded against rows of another tensor of the base", change)
    if refused := [layers.refused[module] for module in modules if module in layers.refused]:
        return Obstacle(refused[0], change)
    if not name.endswith(".weight") or not all(module in layers.kinds for module in modules):
        return Obstacle("no layer that a LoRA changes", change)
    if to == "vllm":
        return _vllm_obstacle(change, modules, layers)
    return None


def _vllm_obstacle(change: TensorChange, modules: Sequence[str], layers: ModelLayers) -> Obstacle | None:
    """Return the reason why vLLM would refuse a LoRA of the given modules, or None if it would not."""
    kinds = {module: layers.kinds[module] for module in modules}
    if any(is_embedding_refused(layers.model, module, kind == "embedding") for module, kind in kinds.items()):
        return Obstacle(f"vLLM refuses LoRA of embeddings for {layers.model}", change)
    if not outside_language_model(layers.modules).isdisjoint(modules):
        return Obstacle("vLLM applies LoRA to the language model only", change)
    heads = head_modules(layers)
    if any(module in heads or enclosing(module, heads) for module in modules):
        return Obstacle(f"vLLM takes no such head for {layers.model}", change)
    return Obstacle("vLLM refuses LoRA of convolutions", change) if "convolution" in kinds.values() else None
