"""Which tensor of a model belongs to which tensor of a pack, and which of them the fine-tune changes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtscodec.checkpoints.name_matching import best_rule
from dtscodec.errors import EncodeError, ModelMismatchError, Remedy
from dtscodec.format.blocks import is_unchanged
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.tensor_names import base_name
from dtscodec.packs.base_check import check_fit
from dtscodec.packs.pack import Pack
from dtscodec.runtime.slots import Slot


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """How a pack fits a model.

    Parameters
    ----------
    changed : mapping
        Slots whose content the fine-tune changes, and the pack's tensor for each.
    bases : mapping
        Base tensors that the pack uses, by their names in the pack, and the slot where the model has each, if it does.
    """

    changed: Mapping[Slot, str]
    bases: Mapping[str, Slot | None]


def match_model(
    pack: Pack, slots: Mapping[str, Slot], base_specs: Mapping[str, TensorSpec] | None = None
) -> ModelMatch:
    """Match the names of a pack to those of a model: equal, or with one leading prefix more on one side.

    Parameters
    ----------
    pack : Pack
    slots : mapping
        The model's.
    base_specs : mapping, optional
        Tensors of the base, if that is not the model itself.

    Raises
    ------
    ModelMismatchError
        The model has no place for what the fine-tune changes.
    BaseMismatchError
        The base lacks a tensor, or it is of another shape.
    """
    names = _home_names(pack, slots)
    bases = _bases(pack, slots, names)
    specs = base_specs if base_specs is not None else {name: slot.spec for name, slot in bases.items() if slot}
    for entry in pack.index.tensors:
        for block in entry.blocks:
            check_fit(entry, block, specs, "the model" if base_specs is None else "the base")
    changed: dict[Slot, list[TensorEntry]] = defaultdict(list)
    still: dict[Slot, list[TensorEntry]] = defaultdict(list)
    for entry in pack.index.tensors:
        source = pack.reader.entry(entry.tied_to) if entry.tied_to is not None else entry
        slot = slots.get(names[entry.name])
        is_still = _is_still(source, slot, specs, bases)
        if slot is not None:
            (still if is_still else changed)[slot].append(source)
        elif not is_still:
            detail = "expected a tensor of this name in the model, got none"
            raise ModelMismatchError(f"{entry.name}: {detail}", Remedy("load a model of the fine-tune's kind"))
    return ModelMatch({slot: _only(slot, sources, still.get(slot, [])) for slot, sources in changed.items()}, bases)


def _home_names(pack: Pack, slots: Mapping[str, Slot]) -> dict[str, str]:
    """For each of the pack's tensors the name that it would have in the model."""
    shapes = {name: TensorSpec("U8", slot.shape) for name, slot in slots.items()}
    try:
        rule = best_rule({entry.name: entry.spec for entry in pack.index.tensors}, shapes)
    except EncodeError as error:
        raise ModelMismatchError(error.problem) from error
    return {entry.name: base_name(entry.name, rule) for entry in pack.index.tensors}


def _bases(pack: Pack, slots: Mapping[str, Slot], names: Mapping[str, str]) -> dict[str, Slot | None]:
    """Where the model has the base tensors: at the name of the tensor that is made from each, else at their own."""
    homes = {base_name(name, pack.index.prefix): home for name, home in names.items()}
    return {name: slots.get(homes.get(name, name)) for name in pack.index.base_names()}


def _is_still(
    entry: TensorEntry, slot: Slot | None, specs: Mapping[str, TensorSpec], bases: Mapping[str, Slot | None]
) -> bool:
    """Whether a tensor is the base's own, so that a model that holds the base holds it already."""
    block = entry.blocks[0]
    base = block.base
    if len(entry.blocks) > 1 or not is_unchanged(block) or base is None or base.first:
        return False
    return bases[base.name] is slot and specs[base.name] == entry.spec


def _only(slot: Slot, sources: Sequence[TensorEntry], still: Sequence[TensorEntry]) -> str:
    """The one tensor of the fine-tune that belongs into a slot."""
    names = list(dict.fromkeys(source.name for source in (*sources, *still)))
    if len(names) > 1:
        detail = f"expected one tensor in the fine-tune as in the model, got {' and '.join(names)}"
        raise ModelMismatchError(f"{slot.name}: {detail}", Remedy("load the model untied"))
    return names[0]


def check_writable(entry: TensorEntry, slot: Slot) -> None:
    """Raise ModelMismatchError unless a tensor of the fine-tune can be written into a slot."""
    wanted, found = entry.spec, slot.spec
    convertible = {wanted.dtype, found.dtype} <= CODED_DTYPES
    if found.shape != wanted.shape or (found.dtype != wanted.dtype and not convertible):
        raise ModelMismatchError(f"{slot.name}: expected {wanted} as the fine-tune has it, got {found}")
