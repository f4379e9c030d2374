"""Where a model has the tensors of a checkpoint, and writing any part of the model from them."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from dtscodec.errors import Remedy
from dtscodec.evaluation.empty_model import fill
from dtscodec.evaluation.loading_report import check_loading_report
from dtscodec.evaluation.weight_conversions import is_ignored_on_load, locate_tensors

ReadTensor: TypeAlias = Callable[[str], Tensor]
"""Returns a tensor of a checkpoint by its name there."""


class CheckpointPlaces:
    """The places of a checkpoint's tensors in a model, as transformers has them when it loads the checkpoint.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model; its parameters may be empty.
    shapes : mapping of str to tuple of int
        Shapes of the checkpoint's tensors by name.
    location : str
        Path of the checkpoint, for messages.
    remedy : Remedy
        The remedy if the tensors do not fit the model.

    Raises
    ------
    CheckpointError
        Tensors of the model are missing, there are others, or shapes differ.
    """

    def __init__(self, model: Any, shapes: Mapping[str, tuple[int, ...]], location: str, remedy: Remedy) -> None:
        self._state: dict[str, Tensor] = model.state_dict(keep_vars=True)
        located = locate_tensors(model, shapes)
        self._names = {own: name for name, own in located.renamed.items()}
        self._groups = located.groups
        self._check(model, shapes, location, remedy)

    def _check(self, model: Any, shapes: Mapping[str, tuple[int, ...]], location: str, remedy: Remedy) -> None:
        """Raise CheckpointError unless the checkpoint has exactly the tensors of the model."""
        found = {*self._names, *(name for group in self._groups for name in group.targets)}
        known = {*self._names.values(), *(name for group in self._groups for name in group.sources)}
        # One of tied tensors is enough.
        held = {id(self._state[name]) for name in found}
        ignored = model._keys_to_ignore_on_load_missing or ()
        missing = [
            name
            for name, tensor in self._state.items()
            if id(tensor) not in held and not any(re.search(pattern, name) for pattern in ignored)
        ]
        unexpected = [name for name in shapes if name not in known and not is_ignored_on_load(model, name)]
        mismatched = [
            (name, shapes[name], tuple(self._state[own].shape))
            for own, name in self._names.items()
            if shapes[name] != tuple(self._state[own].shape)
        ]
        report = {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": mismatched}
        check_loading_report(report, type(model).__name__, location, remedy)

    def write(self, tensors: Collection[Tensor], read: ReadTensor) -> None:
        """Fill some parameters and buffers of the model with the checkpoint's tensors, which are read one at a time.

        Parameters
        ----------
        tensors : collection of Tensor
            The model's parameters and buffers. Those that the checkpoint does not have stay as they are.
        read : callable
            Returns a tensor of the checkpoint by its name there.
        """
        wanted = {id(tensor) for tensor in tensors}
        for own, name in self._names.items():
            if id(self._state[own]) in wanted:
                fill(self._state[own], read(name))
        # Tensors that transformers makes from several.
        for group in self._groups:
            if any(id(self._state[name]) in wanted for name in group.targets):
                for name, tensor in group.to_model({name: read(name) for name in group.sources}).items():
                    fill(self._state[name], tensor)
