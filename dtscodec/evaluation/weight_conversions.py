"""What transformers does to the tensors of a checkpoint as it loads them: it renames, stacks, splits, transposes them.

Its own tables and operations are used, so that the result is right for every architecture that it knows. They are
internal; transformers is imported only if the caller has made a model of it.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dtscodec.checkpoints.canonical_names import unwrapped_name

Shapes: TypeAlias = Mapping[str, "tuple[int, ...] | None"]
"""Shapes of a checkpoint's tensors by name; None where the shape is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightGroup:
    """Tensors of a checkpoint, and those of a model that transformers makes from them.

    Parameters
    ----------
    sources : tuple of str
        Names in the checkpoint, in transformers' order.
    targets : tuple of str
        Names in the model.
    operations : str
        transformers' operations, for messages.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: str
    _convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    _revert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

    def to_model(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's tensors by name; the inverse of `to_checkpoint`.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            All tensors of `sources`.
        """
        return self._convert(tensors)

    def to_checkpoint(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the checkpoint's tensors by name, as views where the operations permit; the inverse of `to_model`.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            All tensors of `targets`.
        """
        with _ViewsOnly(), torch.no_grad():
            return self._revert(tensors)


@dataclass(frozen=True, slots=True)
class Located:
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


def locate(model: Any, shapes: Shapes) -> Located:
    """Find tensors of a checkpoint in a model, as transformers does when it loads them.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    shapes : mapping of str to shape
        The tensors of the checkpoint. Names in memory are recognized, too.

    Returns
    -------
    Located
        Without the tensors that the model does not have.
    """
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key

    # Fresh ones, since some renamings depend on the names that they have seen.
    transforms = _conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    # Modules may be wrapped one by one: transformers' patterns are for names without wrappers.
    names = {unwrapped_name(name): name for name in _tensors_of(model)}
    state = {name: tensor for own, tensor in _tensors_of(model).items() if names[name := unwrapped_name(own)] == own}
    renamed: dict[str, str] = {}
    groups: dict[str, list[_Source]] = defaultdict(list)
    for name in sorted(shapes, key=dot_natural_key):
        source = _rename(name, model.base_model_prefix, state, renamings, converters)
        if source.target not in state:
            continue
        converter = by_pattern.get(source.pattern or "")
        if converter is None or _stays(converter, shapes[name], state[source.target]):
            renamed[name] = names[source.target]
        else:
            groups[source.target].append(source)
    reverses = {id(one): _Reverse(one, state) for one in converters} if groups else {}
    found = (
        _group(model, target, members, one := by_pattern[str(members[0].pattern)], reverses[id(one)], names)
        for target, members in groups.items()
    )
    return Located(renamed, tuple(group for group in found if group is not None))


def ignores(model: Any, name: str) -> bool:
    """Return whether transformers leaves a tensor of the checkpoint out on purpose when it loads a model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    name : str
        Name of a tensor that the model does not have.
    """
    import re

    return any(re.search(pattern, name) for pattern in model._keys_to_ignore_on_load_unexpected or ())


def _tensors_of(model: Any) -> dict[str, Tensor]:
    """Return the tensors of a model's state dict, without the hooks that gather sharded ones."""
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        tensors = {**module._parameters, **module._buffers}
        kept = {name: one for name, one in tensors.items() if name not in module._non_persistent_buffers_set}
        found |= {f"{prefix}.{name}" if prefix else name: one for name, one in kept.items() if one is not None}
    return found


def _conversion_mapping(model: Any) -> list[Any]:
    from transformers.conversion_mapping import get_model_conversion_mapping

    return list(get_model_conversion_mapping(model))


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor of a checkpoint on its way into a model.

    `renamed` is its name after renamings, `target` that of the first model tensor that it becomes a part of, and
    `pattern` the converter's pattern that its name matches, if any does.
    """

    name: str
    renamed: str
    target: str
    pattern: str | None


def _rename(name: str, prefix: str, state: dict[str, Any], renamings: list[Any], converters: list[Any]) -> _Source:
    """Rename a tensor as `convert_and_load_state_dict_in_model` of transformers does."""
    from transformers.core_model_loading import apply_renamings, rename_source_key

    renamed = apply_renamings(name, renamings)
    target, pattern = rename_source_key(renamed, [], converters, prefix, state)
    if target not in state and name in state:
        return _Source(name, name, name, None)
    return _Source(name, renamed, target, pattern)


def _stays(converter: Any, shape: "tuple[int, ...] | None", tensor: Tensor) -> bool:
    """Return whether a converter leaves a tensor as it is: one that transposes by shape, where the shapes agree."""
    by_shape = all(getattr(operation, "check_dims", False) for operation in converter.operations)
    return by_shape and (shape is None or shape == tuple(tensor.shape))


class _Reverse:
    """A converter's reverse, and the model's tensors that it takes together: from each to the names of all."""

    def __init__(self, converter: Any, state: Mapping[str, Any]) -> None:
        self.converter = converter.reverse_transform()
        for operation in self.converter.operations:
            if getattr(operation, "check_dims", False):
                operation.check_dims = False  # `_stays` has compared the shapes, of which the reverse knows one only.
        self._keys: dict[str, str] = {}
        self._members: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in state:
            key, pattern = self.converter.rename_source_key(name)
            if pattern is not None:
                self._keys[name] = key
                self._members[key].append((name, pattern))

    def key(self, name: str) -> str | None:
        """Return the reverse's name for the group of a model tensor."""
        return self._keys.get(name)

    def members(self, key: str) -> list[tuple[str, str]]:
        """Return the model's tensors of a group, each with the pattern that it matches."""
        return self._members[key]


def _group(
    model: Any, target: str, members: list[_Source], converter: Any, reverse: _Reverse, names: Mapping[str, str]
) -> WeightGroup | None:
    """Return the group of a model tensor, or None if transformers cannot reverse its conversion.

    `names` are the model's names by those without wrappers.
    """
    key = reverse.key(target)
    if key is None:
        return None
    targets = reverse.members(key)
    prefix = f"{model.base_model_prefix}."

    def revert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        run = deepcopy(reverse.converter)
        for name, pattern in targets:
            run.add_tensor(key, name, pattern, tensors[names[name]])
        out = {name: _single(value) for name, value in run.convert(key, model=model, config=model.config).items()}
        # The names of a checkpoint of the bare model lack the prefix that the model has.
        return {
            member.name: out[name]
            for member in members
            for name in _first(out, (member.renamed, prefix + member.renamed, member.renamed.removeprefix(prefix)))
        }

    def convert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        run = deepcopy(converter)
        for member in members:
            run.add_tensor(target, member.name, member.pattern, tensors[member.name])
        out = run.convert(target, model=model, config=model.config)
        return {names[name]: _single(value) for name, value in out.items()}

    operations = ", ".join(map(repr, converter.operations))
    return WeightGroup(
        tuple(member.name for member in members), tuple(names[name] for name, _ in targets), operations, convert, revert
    )


def _first(found: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the first name that is found, in a list; an empty list if there is none."""
    return [name for name in names if name in found][:1]


def _single(value: "Tensor | list[Tensor]") -> Tensor:
    return value[0] if isinstance(value, list) else value


class _ViewsOnly(TorchFunctionMode):
    """Lets `contiguous` return views while the context lasts, so that stacked and joined tensors are taken apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.contiguous else func(*args, **(kwargs or {}))
