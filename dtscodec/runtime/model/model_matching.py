"""Match the tensors of a pack to those of a model, and find the ones that the fine-tune changes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from dtscodec.errors import BaseMismatchError, ModelMismatchError, Remedy
from dtscodec.format.blocks import BaseRows, is_unchanged
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.naming import base_name
from dtscodec.packs.pack import Pack
from dtscodec.runtime.model.model_slots import ModelSlots
from dtscodec.runtime.model.slots import Slot, are_same_rows

OTHER_KIND = Remedy("load a model of the fine-tune's kind from the base, or use dtscodec.from_pretrained")


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """The tensors of a pack in a model.

    Parameters
    ----------
    changed : mapping of Slot to str
        The slots that the fine-tune changes, and the name of the pack's tensor for each.
    bases : mapping of str to Slot or None
        The slot of each base tensor that the pack uses, by the names in the pack; None if the model does not have it.
    """

    changed: Mapping[Slot, str]
    bases: Mapping[str, Slot | None]


def match_model(
    pack: Pack, slots: ModelSlots, base_specs: Mapping[str, TensorSpec] | None = None, exact: bool = False
) -> ModelMatch:
    """Match a pack to a model by names; see `ModelSlots.find`.

    Parameters
    ----------
    pack : Pack
        The pack.
    slots : ModelSlots
        The model's parameters and buffers.
    base_specs : mapping of str to TensorSpec, optional
        Dtypes and shapes of the base's tensors; by default those of the model itself.
    exact : bool
        Whether changes of the residual layer count, too.

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
    # Match names, then sort the fine-tune's tensors by slot: those that change it and those that equal the base there.
    found = slots.find({entry.name: entry.spec for entry in pack.index.tensors}, pack.index.folders)
    bases = _bases(pack, slots, found)
    specs = base_specs if base_specs is not None else {name: slot.spec for name, slot in bases.items() if slot}
    changed: dict[Slot, list[TensorEntry]] = defaultdict(list)
    unchanged: dict[Slot, list[TensorEntry]] = defaultdict(list)
    missing = []
    for entry in pack.index.tensors:
        source = pack.reader.entry(entry.tied_to) if entry.tied_to is not None else entry
        slot = found.get(entry.name)
        has_residual = exact and pack.reader.layer is not None and bool(pack.reader.layer.tensor(source.name).chunks)
        is_unchanged = not has_residual and _is_unchanged(source, slot, specs, bases)
        if slot is not None:
            (unchanged if is_unchanged else changed)[slot].append(source)
        elif not is_unchanged and not slots.is_ignored(entry.name):
            missing.append(entry.name)
    if missing:
        raise _missing_tensors(pack, slots, found, missing)
    # Check that the blocks fit the base's shapes.
    if base_specs is None:
        check_bases(bases)
    for entry in pack.index.tensors:
        entry.check_base(specs, "the model" if base_specs is None else "the base")
    return ModelMatch(
        {slot: _single_tensor(slot, sources, unchanged.get(slot, [])) for slot, sources in changed.items()}, bases
    )


def _bases(pack: Pack, slots: ModelSlots, found: Mapping[str, Slot]) -> dict[str, Slot | None]:
    """Return the slot of each base tensor: that of its counterpart in the fine-tune, or that of its own name."""
    names = pack.index.base_names()
    # The counterpart by name, through the fine-tune's names.
    by_name = {base_name(name, pack.index.prefix): slot for name, slot in found.items()}
    by_own = slots.find_names([name for name in names if name not in by_name])
    # The counterpart of a fine-tune whose names were mapped to the base's: the tensor whose first rows are the base's.
    by_rows = {
        base.name: found[entry.name]
        for entry in pack.index.tensors
        if (base := entry.blocks[0].base) is not None and not base.first and entry.name in found
    }
    return {name: by_name.get(name) or by_own.get(name) or by_rows.get(name) for name in names}


def _is_unchanged(
    entry: TensorEntry, slot: Slot | None, specs: Mapping[str, TensorSpec], bases: Mapping[str, Slot | None]
) -> bool:
    """Return whether a tensor equals the base tensors of its slot, so that a model that holds the base holds it."""
    if not all(map(is_unchanged, entry.blocks)):
        return False
    return all(
        _is_in_place(entry, row, base, slot, specs, bases)
        for row, block in entry.placed()
        if (base := block.base) is not None
    )


def _is_in_place(
    entry: TensorEntry,
    row: int,
    base: BaseRows,
    slot: Slot | None,
    specs: Mapping[str, TensorSpec],
    bases: Mapping[str, Slot | None],
) -> bool:
    """Return whether the base rows of a block are where the model has the block, in the same dtype."""
    own, spec = bases[base.name], specs.get(base.name)
    if slot is None and own is None:
        # The model has neither, so that only a base tensor of the same form counts.
        return base.first == row and spec in (None, entry.spec)
    if slot is None or own is None or spec is None or spec.dtype != entry.spec.dtype:
        return False
    return are_same_rows(slot, row, own, base.first, entry.columns)


def check_bases(bases: Mapping[str, Slot | None]) -> None:
    """Raise BaseMismatchError unless a model has all base tensors.

    Parameters
    ----------
    bases : mapping of str to Slot or None
        See `ModelMatch`.
    """
    missing = [name for name, slot in bases.items() if slot is None]
    if missing:
        more = f", nor of {len(missing) - 1} others" if len(missing) > 1 else ""
        detail = f"expected the base's tensor of this name, got none{more}"
        where, remedy = f"the model: {missing[0]!r}", Remedy("give the base as {base}")
        raise BaseMismatchError("base-tensor", where, detail, "4.4", remedy)


def _missing_tensors(
    pack: Pack, slots: ModelSlots, found: Mapping[str, Slot], missing: Sequence[str]
) -> ModelMismatchError:
    """Return the error about changed tensors that the model lacks, with the likely cause."""
    model, first = type(slots.model).__name__, missing[0]
    more = f", nor of {len(missing) - 1} others" if len(missing) > 1 else ""
    folders = sorted({folder for name in missing if (folder := pack.index.folder_of(name)) is not None})
    if any(name.endswith("_flat_param") for name in slots):
        detail = f"expected a tensor of this name in the model, a {model}, got FSDP's flat parameters"
        return ModelMismatchError(f"{first}: {detail}", Remedy("use the pack before the model is sharded"))
    if len(found) < len(pack.index.tensors) / 2:
        detail = f"expected the fine-tune's architecture, got a {model} with {len(found)} of its"
        return ModelMismatchError(
            f"{first}: {detail} {len(pack.index.tensors)} tensors",
            OTHER_KIND,
        )
    if folders:
        detail = f"expected a pipeline with the module {folders[0]}, got a {model}"
        return ModelMismatchError(f"{first}: {detail}", Remedy("pass the SentenceTransformer of the base's directory"))
    detail = f"expected a tensor of this name in the model, a {model}, got none{more}"
    moved = next((name for name in slots if _is_moved(name, first)), None)
    if moved is None:
        return ModelMismatchError(f"{first}: {detail}", OTHER_KIND)
    remedy = Remedy("use the pack before adapters or parametrizations are added to the model")
    return ModelMismatchError(f"{first}: {detail}; the layer has {moved}", remedy)


def _is_moved(own: str, name: str) -> bool:
    """Return whether a tensor of a model is the one of a name, which PEFT, a parametrization or pruning has moved."""
    module, _, attribute = name.rpartition(".")
    moved = ("base_layer.{}", "parametrizations.{}.", "{}_orig", "{}_g")
    return any(f".{module}.{place.format(attribute)}" in f".{own}" for place in moved)


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
    if any(torch._debug_has_internal_overlap(whole.tensor) == 1 for whole in slot.wholes):
        problem = f"{slot.name}: expected memory of its own for each element, got an expanded tensor"
        raise ModelMismatchError(problem, Remedy("make it contiguous"))
