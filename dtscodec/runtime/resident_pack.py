"""A pack in memory, still packed, on the devices of the model that it belongs to."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from dtscodec.decoding.loaded_exact import LoadedExact, load_exact
from dtscodec.decoding.reconstruct import LoadedTensor, load_tensors
from dtscodec.errors import FormatError, ModelMismatchError, Remedy
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.packed import Packed
from dtscodec.messages import counted
from dtscodec.packs.pack import Pack
from dtscodec.runtime.model.model_matching import ModelMatch, check_writable, match_model
from dtscodec.runtime.model.model_slots import ModelSlots
from dtscodec.runtime.model.slots import Slot
from dtscodec.runtime.running_base import RunningBase

Change: TypeAlias = LoadedTensor | LoadedExact
"""A changed tensor in memory: what approximates it, or with the chunks that make it exact."""


@dataclass(frozen=True, slots=True, eq=False)
class ResidentPack:
    """A task's pack, matched to a model.

    Parameters
    ----------
    changes : mapping of Slot to LoadedTensor or LoadedExact
        The tensors that the fine-tune changes.
    bases : mapping of str to Slot or None
        The base tensors that the pack uses, by their names in the pack, and the slot where the model has each, if it
        does.
    base_copies : dict of str to (TensorSpec, uint8 Tensor)
        Base tensors that are copied for this task alone: dtype and shape, and bytes. `Attached` fills it before the
        task can be looked up.
    leaves : mapping of str to bytes
        First bytes of the leaf of each base tensor.
    """

    changes: Mapping[Slot, Change]
    bases: Mapping[str, Slot | None]
    base_copies: dict[str, tuple[TensorSpec, Tensor]] = field(default_factory=dict)
    leaves: Mapping[str, bytes] = field(default_factory=dict)

    def base_names(self, slot: Slot) -> list[str]:
        """Return the names of the base tensors that the blocks of a changed tensor refer to."""
        return [base.name for block in self.changes[slot].entry.blocks if (base := block.base)]

    def loaded(self, slot: Slot) -> LoadedTensor:
        """Return a changed tensor of a pack that is used beside the model's layers, which is never used exactly."""
        change = self.changes[slot]
        assert isinstance(change, LoadedTensor)
        return change

    def coded_rows(self, slot: Slot) -> Tensor | None:
        """Return the coded rows of a changed tensor, if only whole rows differ from the base.

        Parameters
        ----------
        slot : Slot
            A slot that the task changes.

        Returns
        -------
        int [rows] or None
            None if all rows are coded, if only some columns are, if the tensor has several blocks or a base of other
            rows, or if the model holds it in another form.
        """
        change = self.changes[slot]
        if isinstance(change, LoadedExact):
            return None
        payload, base = change.blocks[0].payload, change.blocks[0].block.base
        # One coded block on the same rows of the base, and rows of the matrix that are rows of the tensor (split 1).
        if (
            len(change.blocks) > 1
            or change.entry.split > 1
            or not isinstance(payload, Packed)
            or base is None
            or base.first
            or not slot.is_in_place
        ):
            return None
        return payload.rows if self.bases[base.name] is slot and payload.cols is None else None

    @property
    def nbytes(self) -> int:
        """Bytes in memory: codes, numbers, indices of coded rows and columns, exact bytes, copies of base tensors."""
        # Blocks share stores, so count each tensor once.
        exact = sum(change.nbytes for change in self.changes.values() if isinstance(change, LoadedExact))
        return exact + sum(_size(tensor) for tensor in set(self._tensors()))

    def _tensors(self) -> list[Tensor]:
        loaded = [change for change in self.changes.values() if isinstance(change, LoadedTensor)]
        payloads = [block.payload for change in loaded for block in change.blocks]
        packed = [payload for payload in payloads if isinstance(payload, Packed)]
        found = [part for one in packed for part in (one.store.codes, one.store.numbers, one.rows, one.cols)]
        copies = [data for _, data in self.base_copies.values()]
        return [part for part in (*found, *payloads, *copies) if isinstance(part, Tensor)]


def load_resident(
    pack: Pack,
    slots: ModelSlots,
    base: RunningBase,
    check: Callable[[TensorEntry, Slot], None] = check_writable,
    check_match: Callable[[ModelMatch], None] = lambda _: None,
    exact: bool = False,
) -> ResidentPack:
    """Match a pack to a model, check the base, and read the tensors that the pack changes.

    Parameters
    ----------
    pack : Pack
        The pack. It may be closed afterwards.
    slots : ModelSlots
        The model's parameters and buffers.
    base : RunningBase
        The base.
    check : callable
        Raises ModelMismatchError unless a changed tensor can be used in a slot.
    check_match : callable
        Raises an error if the slots of changed tensors and of base tensors cannot be used now.
    exact : bool
        Whether the residual layer is read, too.

    Returns
    -------
    ResidentPack
        The changed tensors, each on the device of its slot.

    Raises
    ------
    ModelMismatchError
        The pack does not match the model, or the model does not hold the base.
    BaseMismatchError
        The base is not the one that the pack was made against.
    FormatError
        The pack is damaged.
    """
    # Match, check, then read: errors come before memory is taken.
    base.dequantize_for(pack)
    if exact and pack.reader.layer is None:
        detail = "expected a pack with a residual layer, got one without"
        raise FormatError("feature", str(pack.path or "pack"), detail, "15", Remedy("use it as it is, not exactly"))
    if not exact:
        pack.check_front()
    found = match_model(pack, slots, base.source.specs if base.source else None, exact)
    _check_all([(pack.reader.entry(name), slot) for slot, name in found.changed.items()], check)
    check_match(found)
    base.check(pack, found.bases)
    with torch.inference_mode(False):  # Tensors made in inference mode could not be used outside of it.
        leaves = {name: pack.reader.leaves[name] for name in found.bases}
        changes = _read_exact(pack, found) if exact else _read(pack, found)
        return ResidentPack(changes, found.bases, leaves=leaves)


def _check_all(changes: "list[tuple[TensorEntry, Slot]]", check: Callable[[TensorEntry, Slot], None]) -> None:
    """Check all changed tensors. The error is about the first that cannot be used, with the number of the others."""
    refused = []
    for entry, slot in changes:
        try:
            check(entry, slot)
        except ModelMismatchError as error:
            refused.append(error)
    if not refused:
        return
    first, others = refused[0], len(refused) - 1
    more = f" (and {counted(others, 'more tensor')} refused)" if others else ""
    raise ModelMismatchError(f"{first.problem}{more}", first.remedy)


def _read_exact(pack: Pack, found: ModelMatch) -> dict[Slot, Change]:
    """Read the changed tensors with their chunks, into main memory."""
    return {slot: load_exact(pack.reader, name) for slot, name in found.changed.items()}


def _read(pack: Pack, found: ModelMatch) -> dict[Slot, Change]:
    """Read the changed tensors, all those of one device in one call."""
    by_device: dict[torch.device, set[str]] = defaultdict(set)
    for slot, name in found.changed.items():
        by_device[slot.device].add(name)
    loaded = {device: load_tensors(pack.reader, sorted(names), device) for device, names in by_device.items()}
    return {slot: loaded[slot.device][name] for slot, name in found.changed.items()}


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
