"""Tensors of a checkpoint that transformers makes into other tensors of a model, by its own operations, and back."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


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
class GroupSource:
    """A tensor of a checkpoint on its way into a model.

    Parameters
    ----------
    name : str
        Its name in the checkpoint.
    renamed : str
        Its name after transformers' renamings.
    target : str
        The first model tensor that it becomes a part of, without the components of wrappers.
    pattern : str or None
        The converter's pattern that its name matches, if any does.
    """

    name: str
    renamed: str
    target: str
    pattern: str | None


class ReverseConverter:
    """A converter's reverse, and the model's tensors that it takes together: from each to the names of all.

    Parameters
    ----------
    converter : transformers.core_model_loading.WeightConverter
        The converter.
    state : mapping
        The model's tensors by name.
    """

    def __init__(self, converter: Any, state: Mapping[str, Any]) -> None:
        self.converter = converter.reverse_transform()
        for operation in self.converter.operations:
            if getattr(operation, "check_dims", False):
                operation.check_dims = False  # The reverse has one of the shapes only; they have been compared before.
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


def make_group(
    model: Any,
    target: str,
    members: list[GroupSource],
    converter: Any,
    reverse: ReverseConverter,
    names: Mapping[str, str],
) -> WeightGroup | None:
    """Return the group of a model tensor, or None if transformers cannot reverse its conversion.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    target : str
        Name of the model tensor, without the components of wrappers.
    members : list of GroupSource
        The checkpoint's tensors that become parts of it.
    converter : transformers.core_model_loading.WeightConverter
        Their converter.
    reverse : ReverseConverter
        Its reverse.
    names : mapping of str to str
        The model's names by those without wrappers.
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
