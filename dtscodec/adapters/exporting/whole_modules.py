"""Modules that an adapter stores as a whole (PEFT's `modules_to_save`): heads of classifiers, and others on demand."""

from collections.abc import Collection, Iterable, Mapping

from dtscodec.adapters.exporting.vllm_constraints import HEADS
from dtscodec.adapters.model_layers import ModelLayers

CLASSIFIERS = {"ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}
"""PEFT's `task_type` by the end of a class name. With it PEFT stores the modules `HEADS` as a whole by default."""


def head_modules(layers: ModelLayers) -> frozenset[str]:
    """Return the heads of a classifier, by PEFT's rule: modules whose names end in `HEADS`.

    Parameters
    ----------
    layers : ModelLayers
        Layers of the model. Other models than classifiers have no such heads.
    """
    if not layers.model.endswith("Classification"):
        return frozenset()
    found = {module for module in layers.modules if module.endswith(HEADS)}
    # The outermost: RoBERTa's head consists of several layers.
    return frozenset(module for module in found if not any(_is_inside(module, other) for other in found))


def _is_inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


def enclosing(name: str, modules: Collection[str]) -> str | None:
    """Return the innermost of some modules that a tensor or module belongs to, or None.

    Parameters
    ----------
    name : str
        Name of the tensor or module.
    modules : collection of str
        Names of modules.
    """
    while name:
        name = name.rpartition(".")[0]
        if name in modules:
            return name
    return None


def choose_whole(
    changed: Iterable[str], wanted: Collection[str], in_checkpoint: Mapping[str, str], layers: ModelLayers
) -> dict[str, str]:
    """Choose the modules that can be stored as a whole, for tensors that are changed.

    A module can if all its tensors are in the pack and no other module uses them.

    Parameters
    ----------
    changed : iterable of str
        Names of the changed tensors in the model.
    wanted : collection of str
        Modules that may be stored as a whole, none of which is in another.
    in_checkpoint : mapping of str to str
        Names in the pack by names in the model.
    layers : ModelLayers
        Layers of the model.

    Returns
    -------
    dict of str to str
        The module of each tensor that is thereby carried.
    """
    found = {}
    for name in changed:
        module = enclosing(name, wanted)
        if module is None:
            continue
        own = [tensor for tensor in layers.specs if _is_inside(tensor, module)]
        if all(tensor in in_checkpoint and len(layers.sharing[tensor]) == 1 for tensor in own):
            found[name] = module
    return found


def holders(dropped: Iterable[str], carried: Collection[str], layers: ModelLayers) -> frozenset[str]:
    """Return the outermost modules that hold dropped tensors directly, and contain no layer that carries a pair.

    Parameters
    ----------
    dropped : iterable of str
        Names of tensors in the model.
    carried : collection of str
        Modules that carry a pair.
    layers : ModelLayers
        Layers of the model.
    """
    found = {module for name in dropped if (module := name.rpartition(".")[0]) in layers.modules}
    # PEFT replaces every module whose name ends in a stored module's name, with all its layers.
    found = {
        module for module in found if not any(layer.endswith(module) or _is_inside(layer, module) for layer in carried)
    }
    return frozenset(module for module in found if enclosing(module, found) is None)
