"""Turn a model that holds the base into a fine-tune, in place."""

from contextlib import ExitStack
from functools import partial

from torch import Tensor, nn

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.format.dtypes import TensorSpec
from dtscodec.packs.pack import PackSource, as_pack
from dtscodec.runtime.model.model_slots import ModelSlots
from dtscodec.runtime.model.slots import Slot, are_same_rows, writable, write_slot
from dtscodec.runtime.resident_pack import ResidentPack, load_resident
from dtscodec.runtime.running_base import RunningBase, open_running_base


def apply_(model: nn.Module, pack: PackSource, base: "Source | Base | None" = None) -> None:
    """Turn a model that holds the base into the fine-tune, in place and tensor by tensor.

    Model, base and pack are checked before the first weight is written. No copy of the base is made: a `Switcher` can
    switch back. If writing fails midway, the model holds neither: load the base again.

    Parameters
    ----------
    model : nn.Module
        The model. It must not run meanwhile.
    pack : path, bytes or Pack
        The fine-tune's pack.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the pack was made against.

    Raises
    ------
    ModelMismatchError, BaseMismatchError, FormatError
        As for `Switcher.add`. The model is unchanged.
    """
    with ExitStack() as stack:
        running = stack.enter_context(open_running_base(base))
        resident = load_resident(stack.enter_context(as_pack(pack, front=True)), ModelSlots(model), running)
        # Copy base tensors that are overwritten before their last use.
        for slot in resident.changes:
            running.save_copies(resident.bases, _overwritten_bases(resident, slot), slot.device)
        with writable(resident.changes):
            for slot, change in resident.changes.items():
                write_slot(slot, change, partial(_read_base, running, resident, slot))


def _overwritten_bases(resident: ResidentPack, slot: Slot) -> list[str]:
    """Return the base tensors of a change that may be overwritten before they are read.

    They are in another slot, or other rows of this slot are made from their rows.
    """
    entry = resident.changes[slot].entry
    used = [(row, base, resident.bases[base.name]) for row, block in entry.placed() if (base := block.base) is not None]
    return [
        base.name
        for row, base, own in used
        if own is None or not are_same_rows(slot, row, own, base.first, entry.columns)
    ]


def _read_base(running: RunningBase, resident: ResidentPack, slot: Slot, name: str) -> tuple[TensorSpec, Tensor]:
    return running.read(name, resident.bases[name], slot.device)
