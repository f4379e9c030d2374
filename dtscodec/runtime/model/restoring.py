"""Write the base's version of a tensor back into a model."""

import torch
from torch import Tensor

from dtscodec.runtime.model.slots import Slot


def restore_slot(slot: Slot, original: Tensor, written: Tensor | None = None, to_write: Tensor | None = None) -> None:
    """Write the model's original tensor back into a slot.

    Parameters
    ----------
    slot : Slot
        The slot. The caller opens `writable` first.
    original : uint8 [nbytes]
        The bytes that the model held there at first.
    written : int [rows], optional
        Rows that differ from the original; by default all.
    to_write : int [rows], optional
        Rows that need not be restored, since the next task writes them completely.
    """
    dtype, shape = slot.form
    values = original.view(dtype).view(shape)
    if written is None:
        slot.write(values)
        return
    tensor = slot.tensor
    # Restore the rows that the old task wrote and the new one does not write.
    rows = written.long()
    if to_write is not None:
        is_restored = torch.zeros(len(tensor), dtype=torch.bool, device=tensor.device)
        is_restored[rows] = True
        is_restored[to_write.long()] = False
        rows = is_restored.nonzero()[:, 0]
    tensor.index_copy_(0, rows, values.index_select(0, rows))
