"""Match the tensors of a pack to those of a model, and find the ones that the fine-tune changes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtscodec.checkpoints.name_matching import best_rule
from dtscodec.errors import EncodeError, ModelMismatchError, Remedy
from dtscodec.format.blocks import is_unchanged
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.naming import base_name
from dtscodec.packs.pack import Pack
from dtscodec.runtime.slots import Slot


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """The tensors of a pack in a model.

    Parameters
    ----------
    changed : mapping of Slot to str
        The slots that the fine-tune changes, and the name of the pack's tensor for each.
    bases : mapping of str to Slot or None
        The base tensors that the pack uses, by their names in the pack, and the slot where the model has each, if it
        does.
    """

    changed: Mapping[Slot, str]
    bases: Mapping[str, Slot | None]


def match_model(
    pack: Pack, slots: Mapping[str, Slot], base_specs: Mapping[str, TensorSpec] | None = None
) -> ModelMatch:
    """Match a pack to a model by names, which are equal or differ by one leading prefix.

    Parameters
    ----------
    pack : Pack
        The pack.
    slots : mapping of str to Slot
        The model's parameters and buffers.
    base_specs : mapping of str to TensorSpec, optional
        Dtypes and shapes of the base's tensors; by default those of the model itself.

    Returns
    -------
    ModelMatch
        The slots of changed tensors and of base tensors.

    Raises
    ------
    ModelMismatchError
        The model has no tensor for one that the fine-tune changes, or a single one for two of them.
    BaseMismatchError
        The base lacks a tensor, or has it in another shape.
    """
    # Match names, then check that the blocks fit the base's shapes.
    names = _model_names(pack, slots)
    bases = _bases(pack, slots, names)
    specs = base_specs if base_specs is not None else {name: slot.spec for name, slot in bases.items() if slot}
    for entry in pack.index.tensors:
        entry.check_base(specs, "the model" if base_specs is None else "the base")
    changed: dict[Slot, list[TensorEntry]] = defaultdict(list)
    unchanged: dict[Slot, list[TensorEntry]] = defaultdict(list)
    # Sort the fine-tune's tensors by slot, separately those that change it and those that equal the base there.
    for entry in pack.index.tensors:
        source = pack.reader.entry(entry.tied_to) if entry.tied_to is not None else entry
        slot = slots.get(names[entry.name])
        is_unchanged = _is_unchanged(source, slot, specs, bases)
        if slot is not None:
            (unchanged if is_unchanged else changed)[slot].append(source)
        elif not is_unchanged:
            detail = "expected a tensor of this name in the model, got none"
            raise ModelMismatchError(f"{entry.name}: {detail}", Remedy("load a model of the fine-tune's kind"))
    return ModelMatch(
        {slot: _single_tensor(slot, sources, unchanged.get(slot, [])) for slot, sources in changed.items()}, bases
    )


def _model_names(pack: Pack, slots: Mapping[str, Slot]) -> dict[str, str]:
    """Return the name in the model of each of the pack's tensors. The model need not have a tensor of that name."""
    # Only shapes are matched: a model may hold weights in another dtype.
    shapes = {name: TensorSpec("U8", slot.shape) for name, slot in slots.items()}
    try:
        rule = best_rule({entry.name: entry.spec for entry in pack.index.tensors}, shapes)
    except EncodeError as error:
        raise ModelMismatchError(error.problem) from error
    return {entry.name: base_name(entry.name, rule) for entry in pack.index.tensors}


def _bases(pack: Pack, slots: Mapping[str, Slot], names: Mapping[str, str]) -> dict[str, Slot | None]:
    """Return the slot of each base tensor: that of its counterpart in the fine-tune, else that of its own name."""
    # Names in the base -> names in the model, by way of the fine-tune's.
    model_names = {base_name(name, pack.index.prefix): own for name, own in names.items()}
    return {name: slots.get(model_names.get(name, name)) for name in pack.index.base_names()}


def _is_unchanged(
    entry: TensorEntry, slot: Slot | None, specs: Mapping[str, TensorSpec], bases: Mapping[str, Slot | None]
) -> bool:
    """Return whether a tensor equals the base tensor of its slot, so that a model that holds the base holds it."""
    block = entry.blocks[0]
    base = block.base
    # Unchanged: a single block of all rows of the base tensor, from its first on.
    if len(entry.blocks) > 1 or not is_unchanged(block) or base is None or base.first:
        return False
    return bases[base.name] is slot and specs[base.name] == entry.spec


def _single_tensor(slot: Slot, sources: Sequence[TensorEntry], unchanged: Sequence[TensorEntry]) -> str:
    """Return the name of the fine-tune's tensor for a slot; it must be the same for all of the slot's names."""
    names = list(dict.fromkeys(source.name for source in (*sources, *unchanged)))
    if len(names) > 1:
        detail = f"expected one tensor in the fine-tune as in the model, got {' and '.join(names)}"
        raise ModelMismatchError(f"{slot.name}: {detail}", Remedy("load the model untied"))
    return names[0]


def check_writable(entry: TensorEntry, slot: Slot) -> None:
    """Raise ModelMismatchError unless a tensor of the fine-tune can be written into a slot.

    Parameters
    ----------
    entry : TensorEntry
        The tensor of the fine-tune.
    slot : Slot
        The slot. It must have the tensor's shape, and its dtype unless both dtypes are floating-point.
    """
    wanted, found = entry.spec, slot.spec
    convertible = {wanted.dtype, found.dtype} <= CODED_DTYPES
    if found.shape != wanted.shape or (found.dtype != wanted.dtype and not convertible):
        raise ModelMismatchError(f"{slot.name}: expected {wanted} as the fine-tune has it, got {found}")
