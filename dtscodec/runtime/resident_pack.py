"""A pack in memory: what it changes in a model, still packed, on the devices where the model's tensors lie."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dtscodec.decoding.packed_tensors import LoadedTensor, load_tensors
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.packed import Packed
from dtscodec.packs.pack import Pack
from dtscodec.runtime.model_matching import ModelMatch, check_writable, match_model
from dtscodec.runtime.running_base import RunningBase
from dtscodec.runtime.slots import Slot


@dataclass(frozen=True, slots=True, eq=False)
class ResidentPack:
    """A task on a model.

    Parameters
    ----------
    changes : mapping
        The tensors that the fine-tune changes, by slot.
    bases : mapping
        Names of the base tensors that they are made from, and where the model has each, if it does.
    base_copies : dict
        Spec and bytes of those base tensors that it keeps copies of.
    """

    changes: Mapping[Slot, LoadedTensor]
    bases: Mapping[str, Slot | None]
    base_copies: dict[str, tuple[TensorSpec, Tensor]] = field(default_factory=dict)

    def base_names(self, slot: Slot) -> list[str]:
        """Base tensors that a changed tensor is made from."""
        return [base.name for block in self.changes[slot].entry.blocks if (base := block.base)]

    def coded_rows(self, slot: Slot) -> Tensor | None:
        """The rows of which a task writes every element, others being the base's own; None if it is not so simple."""
        change = self.changes[slot]
        payload, base = change.blocks[0].payload, change.blocks[0].block.base
        if (
            len(change.blocks) > 1
            or change.entry.split > 1
            or not isinstance(payload, Packed)
            or base is None
            or base.first
        ):
            return None
        return payload.rows if self.bases[base.name] is slot and payload.cols is None else None

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors in memory: codes, numbers, indices of coded rows and columns, exact bytes."""
        return sum(_size(tensor) for tensor in set(self._tensors()))

    def _tensors(self) -> list[Tensor]:
        payloads = [block.payload for change in self.changes.values() for block in change.blocks]
        packed = [payload for payload in payloads if isinstance(payload, Packed)]
        found = [part for one in packed for part in (one.store.codes, one.store.numbers, one.rows, one.cols)]
        kept = [data for _, data in self.base_copies.values()]
        return [part for part in (*found, *payloads, *kept) if isinstance(part, Tensor)]


def load_resident(
    pack: Pack,
    slots: Mapping[str, Slot],
    base: RunningBase,
    check: Callable[[TensorEntry, Slot], None] = check_writable,
) -> ResidentPack:
    """Match a pack to a model, check the base, and read what it changes.

    Parameters
    ----------
    pack : Pack
    slots : mapping
        The model's.
    base : RunningBase
    check : callable
        Raises ModelMismatchError unless the model has use for a changed tensor in a slot.

    Raises
    ------
    ModelMismatchError
        The pack does not fit the model, or the model does not hold the base.
    BaseMismatchError
        The base is another than the pack was made against.
    FormatError
        The pack is damaged.
    """
    found = match_model(pack, slots, base.source.specs if base.source else None)
    for slot, name in found.changed.items():
        check(pack.reader.entry(name), slot)
    base.check(pack, found.bases)
    with torch.inference_mode(False):  # Else what is read could not be used outside of it.
        return ResidentPack(_read(pack, found), found.bases)


def _read(pack: Pack, found: ModelMatch) -> dict[Slot, LoadedTensor]:
    by_device: dict[torch.device, set[str]] = defaultdict(set)
    for slot, name in found.changed.items():
        by_device[slot.device].add(name)
    loaded = {device: load_tensors(pack.reader, sorted(names), device) for device, names in by_device.items()}
    return {slot: loaded[slot.device][name] for slot, name in found.changed.items()}


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
