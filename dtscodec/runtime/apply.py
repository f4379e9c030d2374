"""A pack put into a model for good."""

from contextlib import ExitStack
from functools import partial

from torch import Tensor, nn

from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.open_inputs import as_base
from dtscodec.format.dtypes import TensorSpec
from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.runtime.resident_pack import ResidentPack, load_resident
from dtscodec.runtime.running_base import RunningBase
from dtscodec.runtime.slots import Slot, slots_of
from dtscodec.runtime.write_slot import writable, write_slot


def apply_(model: nn.Module, pack: PackSource, base: "Source | Base | None" = None) -> None:
    """Turn a model that holds the base into the fine-tune: in place, once, tensor by tensor.

    All is checked before the first weight is written. `Switcher` can go back.

    Parameters
    ----------
    model : nn.Module
    pack : path, bytes or Pack
    base : path, mapping of tensors, or Base, optional
        As for `Switcher`.

    Raises
    ------
    ModelMismatchError, BaseMismatchError, FormatError
        As for `Switcher.add`. The model is as it was.
    """
    with ExitStack() as stack:
        running = RunningBase(stack.enter_context(as_base(base, whole=True)) if base is not None else None)
        resident = load_resident(stack.enter_context(as_pack(pack, whole=True)), slots_of(model), running)
        for slot in resident.changes:
            running.keep(resident.bases, _written_before(resident, slot), slot.device)
        with writable(resident.changes):
            for slot, change in resident.changes.items():
                write_slot(slot, change, partial(_read, running, resident, slot))


def _written_before(resident: ResidentPack, slot: Slot) -> list[str]:
    """Base tensors that a change is made from and that may be written before they are read.

    They lie in another slot, or other rows of the slot are made from them.
    """
    entry = resident.changes[slot].entry
    used = [(row, base) for row, block in entry.placed() if (base := block.base) is not None]
    return [base.name for row, base in used if resident.bases[base.name] is not slot or base.first != row]


def _read(running: RunningBase, resident: ResidentPack, slot: Slot, name: str) -> tuple[TensorSpec, Tensor]:
    home = resident.bases[name]
    kept = running.kept_bytes(name, home, slot.device)
    return kept if kept is not None else running.fetch(name, home, slot.device)
