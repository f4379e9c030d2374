"""Names in a checkpoint -> names in the model that transformers loads from it, which are those that an adapter uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.name_matching import best_rule
from dtscodec.evaluation.weight_conversions import locate_tensors, transformers_models
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import base_name


@dataclass(frozen=True, slots=True)
class ModuleNames:
    """The names in a model of the tensors of a checkpoint.

    Parameters
    ----------
    names : mapping of str to str
        Names in the model by names in the checkpoint. Not all of them need to be the model's.
    converted : mapping of str to str
        For tensors that transformers stacks, joins or splits: the model's tensor that they become a part of.
    """

    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    converted: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def in_checkpoint(self) -> dict[str, str]:
        """Names in the checkpoint by names in the model."""
        return {ours: name for name, ours in self.names.items()}


def match_module_names(model: nn.Module, specs: Specs) -> ModuleNames:
    """Match the names of a checkpoint to a model's, by the renamings of transformers or else by one prefix.

    Parameters
    ----------
    model : nn.Module
        The model. Its tensors may be on the meta device.
    specs : mapping
        Specs of the checkpoint by name.

    Raises
    ------
    EncodeError
        Two prefixes fit equally well.
    """
    state = model.state_dict(keep_vars=True)
    ours = {name: TensorSpec("U8", tuple(tensor.shape)) for name, tensor in state.items()}
    found = _match_by_transformers(model, specs)
    # Names that the model does not have stay, so that they can be reported.
    renamed = ModuleNames({name: found.names.get(name, name) for name in specs.keys() - found.converted.keys()})
    rule = best_rule(specs, ours)
    by_rule = ModuleNames({name: base_name(name, rule) for name in specs})
    if _count(by_rule, specs, ours) > _count(renamed, specs, ours) + len(found.converted):
        return by_rule
    return ModuleNames(renamed.names, found.converted)


def _match_by_transformers(model: nn.Module, specs: Specs) -> ModuleNames:
    """Match names as transformers does; other models have no renamings."""
    models = transformers_models(model)
    if "" not in models:
        return ModuleNames()
    found = locate_tensors(models[""], {name: spec.shape for name, spec in specs.items()})
    converted = {name: ", ".join(group.targets) for group in found.groups for name in group.sources}
    return ModuleNames(found.renamed, converted)


def _count(names: ModuleNames, specs: Specs, ours: Specs) -> int:
    """Count the tensors that agree with the model's in name and shape."""
    return sum(new in ours and ours[new].shape == specs[name].shape for name, new in names.names.items())
