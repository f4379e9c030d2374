"""The slots of a model by its own names, and by those that its checkpoint has."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from torch import nn

from dtscodec.checkpoints.names.name_matching import best_rule, pair_names
from dtscodec.errors import EncodeError, ModelMismatchError
from dtscodec.evaluation.weight_conversions import Shapes, is_ignored_on_load, locate_tensors, transformers_models
from dtscodec.evaluation.weight_groups import WeightGroup
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import base_name
from dtscodec.format.weight_files import split_folder
from dtscodec.runtime.model.converted_slots import slots_of_group
from dtscodec.runtime.model.slots import Slot, slots_of


class ModelSlots(Mapping[str, Slot]):
    """The slots of a model's parameters and buffers by all their names. Tied tensors share a slot.

    Parameters
    ----------
    model : nn.Module
        The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._slots = slots_of(model)
        self._models = transformers_models(model)
        self._placed: dict[object, Slot] = {}

    def __getitem__(self, name: str) -> Slot:
        return self._slots[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, specs: Mapping[str, TensorSpec], folders: Sequence[str] = ()) -> dict[str, Slot]:
        """Find the tensors of a checkpoint in the model.

        Names are equal, or differ by prefixes. For a model of transformers, they may also be those from which it would
        load the model. Folders are those of sentence-transformers: ``2_Dense/linear.weight`` is the tensor
        ``linear.weight`` of the pipeline's third module.

        Parameters
        ----------
        specs : mapping of str to TensorSpec
            The tensors.
        folders : sequence of str
            Folders of the checkpoint with weights of their own.

        Returns
        -------
        dict of str to Slot
            Without the tensors that the model does not have.

        Raises
        ------
        ModelMismatchError
            Two prefixes fit equally well, and nothing else fits better.
        """
        in_folders = {name: place for name in specs if (place := split_folder(name, folders))[0] is not None}
        own = self._find({name: spec for name, spec in specs.items() if name not in in_folders})
        names = {name: _in_pipeline(str(folder), rest) for name, (folder, rest) in in_folders.items()}
        return own | {name: self._slots[inner] for name, inner in names.items() if inner in self._slots}

    def _find(self, specs: Mapping[str, TensorSpec]) -> dict[str, Slot]:
        problem = None
        try:
            best = self._by_prefix(specs)
        except EncodeError as error:
            best, problem = {}, error.problem
        # Of several ways to match, the first under which most tensors agree in shape.
        for way in (self._by_conversions, self._by_several_prefixes):
            if _agreeing(best, specs) == len(specs):
                break
            best = max(best, way(specs), key=partial(_agreeing, specs=specs))
        if not best and problem is not None:
            raise ModelMismatchError(problem)
        return best

    def find_names(self, names: list[str]) -> dict[str, Slot]:
        """Find tensors of unknown shapes in the model: by equal names, or by those of a checkpoint; see `find`."""
        found: dict[str, Slot] = {}
        for prefix, model in self._models.items():
            found |= self._converted(prefix, model, dict.fromkeys(names))
        return found | {name: self._slots[name] for name in names if name in self._slots}

    def is_ignored(self, name: str) -> bool:
        """Return whether transformers leaves a tensor of the checkpoint out on purpose when it loads the model."""
        return any(is_ignored_on_load(model, name) for model in self._models.values())

    def _by_prefix(self, specs: Mapping[str, TensorSpec]) -> dict[str, Slot]:
        rule = best_rule(specs, self._shapes())
        return {name: self._slots[own] for name in specs if (own := base_name(name, rule)) in self._slots}

    def _by_conversions(self, specs: Mapping[str, TensorSpec]) -> dict[str, Slot]:
        shapes = {name: spec.shape for name, spec in specs.items()}
        ways = (self._converted(prefix, model, shapes) for prefix, model in self._models.items())
        return max(ways, key=partial(_agreeing, specs=specs), default={})

    def _by_several_prefixes(self, specs: Mapping[str, TensorSpec]) -> dict[str, Slot]:
        try:
            pairs = pair_names(specs, self._shapes()).counterpart
        except EncodeError:
            return {}
        return {name: self._slots[own] for name, own in pairs.items() if own is not None}

    def _shapes(self) -> dict[str, TensorSpec]:
        # Only shapes are matched: a model may hold weights in another dtype.
        return {name: TensorSpec("U8", slot.shape) for name, slot in self._slots.items()}

    def _converted(self, prefix: str, model: nn.Module, shapes: Shapes) -> dict[str, Slot]:
        located = locate_tensors(model, shapes)
        names = {name: prefix + own for name, own in located.renamed.items()}
        found = {name: self._slots[own] for name, own in names.items() if own in self._slots}
        for group in located.groups:
            found |= self._of_group(prefix, group)
        return found

    def _of_group(self, prefix: str, group: WeightGroup) -> dict[str, Slot]:
        wholes = {name: self._slots[prefix + name] for name in group.targets if prefix + name in self._slots}
        if len(wholes) < len(group.targets):
            return {}
        for slot in wholes.values():
            slot.spec  # noqa: B018  # Raises an error unless the tensor can be taken apart.
        # Names of the same place share the slot of the first, also those of another task's pack.
        return {name: self._placed.setdefault(slot.place, slot) for name, slot in slots_of_group(group, wholes)}


def _in_pipeline(folder: str, name: str) -> str:
    """Return the name in a pipeline of sentence-transformers of a tensor in a module's folder, such as ``2_Dense``."""
    return f"{folder.partition('_')[0]}.{name}"


def _agreeing(found: Mapping[str, Slot], specs: Mapping[str, TensorSpec]) -> int:
    return sum(slot.shape == specs[name].shape for name, slot in found.items())
