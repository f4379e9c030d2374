"""Conversions of transformers as it loads a checkpoint: renaming, stacking, splitting and transposing tensors.

Its own tables and operations are used, so that the result is right for every architecture that it knows. They are
internal; transformers is imported only if the caller has made a model of it.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from dtscodec.checkpoints.names.canonical_names import unwrapped_name
from dtscodec.evaluation.weight_groups import GroupSource, ReverseConverter, WeightGroup, make_group

Shapes: TypeAlias = Mapping[str, "tuple[int, ...] | None"]
"""Shapes of a checkpoint's tensors by name; None where the shape is not known."""


@dataclass(frozen=True, slots=True)
class LocatedTensors:
    """Tensors of a checkpoint in a model.

    Parameters
    ----------
    renamed : mapping of str to str
        Names in the model of the tensors that it holds as they are.
    groups : tuple of WeightGroup
        The tensors that it holds in another form.
    """

    renamed: Mapping[str, str]
    groups: tuple[WeightGroup, ...]


def transformers_models(model: nn.Module) -> dict[str, Any]:
    """Return the transformers models in a module that are in no other one, by their prefix, which ends in a dot.

    Parameters
    ----------
    model : nn.Module
        Any module: a model of transformers itself (its prefix is empty), or one that contains some.
    """
    library = sys.modules.get("transformers.modeling_utils")
    if library is None:
        return {}
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, library.PreTrainedModel) and not any(map(prefix.startswith, found)):
            found[prefix] = module
    return found


def locate_tensors(model: Any, shapes: Shapes) -> LocatedTensors:
    """Find tensors of a checkpoint in a model, as transformers does when it loads them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    shapes : mapping of str to shape
        The tensors of the checkpoint. Names in memory are recognized, too.

    Returns
    -------
    LocatedTensors
        Without the tensors that the model does not have.
    """
    try:
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key
    except ImportError:  # These names are internal; without them no conversion is known.
        return LocatedTensors({}, ())

    # New objects, since some renamings depend on the names that they were given before.
    transforms = _conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    # Modules may be wrapped one by one: transformers' patterns are for names without wrappers.
    names = {unwrapped_name(name): name for name in _tensors_of(model)}
    state = {name: tensor for own, tensor in _tensors_of(model).items() if names[name := unwrapped_name(own)] == own}
    # Tensors that only get another name, and those that a converter joins in one tensor of the model.
    renamed: dict[str, str] = {}
    groups: dict[str, list[GroupSource]] = defaultdict(list)
    for name in sorted(shapes, key=dot_natural_key):
        source = _rename(name, model.base_model_prefix, state, renamings, converters)
        if source.target not in state:
            continue
        converter = by_pattern.get(source.pattern or "")
        if converter is None or _is_unchanged(converter, shapes[name], state[source.target]):
            renamed[name] = names[source.target]
        else:
            groups[source.target].append(source)
    # Add the reverse of each conversion; groups without one are left out.
    reverses = {id(one): ReverseConverter(one, state) for one in converters} if groups else {}
    found = (
        make_group(model, target, members, one := by_pattern[str(members[0].pattern)], reverses[id(one)], names)
        for target, members in groups.items()
    )
    return LocatedTensors(renamed, tuple(group for group in found if group is not None))


def is_ignored_on_load(model: Any, name: str) -> bool:
    """Return whether transformers leaves a tensor of the checkpoint out on purpose when it loads a model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    name : str
        Name of a tensor that the model does not have.
    """
    return any(re.search(pattern, name) for pattern in model._keys_to_ignore_on_load_unexpected or ())


def _tensors_of(model: Any) -> dict[str, Tensor]:
    """Return the tensors of a model's state dict, without the hooks that gather sharded ones."""
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        tensors = {**module._parameters, **module._buffers}
        persistent = {name: one for name, one in tensors.items() if name not in module._non_persistent_buffers_set}
        found |= {f"{prefix}.{name}" if prefix else name: one for name, one in persistent.items() if one is not None}
    return found


def _conversion_mapping(model: Any) -> list[Any]:
    from transformers.conversion_mapping import get_model_conversion_mapping

    return list(get_model_conversion_mapping(model))


def _rename(name: str, prefix: str, state: dict[str, Any], renamings: list[Any], converters: list[Any]) -> GroupSource:
    """Rename a tensor as `convert_and_load_state_dict_in_model` of transformers does."""
    from transformers.core_model_loading import apply_renamings, rename_source_key

    renamed = apply_renamings(name, renamings)
    target, pattern = rename_source_key(renamed, [], converters, prefix, state)
    if target not in state and name in state:
        return GroupSource(name, name, name, None)
    return GroupSource(name, renamed, target, pattern)


def _is_unchanged(converter: Any, shape: "tuple[int, ...] | None", tensor: Tensor) -> bool:
    """Return whether a converter does not change a tensor: it transposes by shape, and the shapes agree already."""
    by_shape = all(getattr(operation, "check_dims", False) for operation in converter.operations)
    return by_shape and (shape is None or shape == tuple(tensor.shape))
