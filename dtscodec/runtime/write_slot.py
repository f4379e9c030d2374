"""Rebuild one changed tensor in the model's memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import torch_form
from dtscodec.decoding.reconstruct import LoadedTensor, ReadBase, reconstruct
from dtscodec.kernels.select import backend_for
from dtscodec.runtime.running_base import bytes_of
from dtscodec.runtime.slots import Slot


def write_slot(slot: Slot, change: LoadedTensor, read_base: ReadBase, holds_base: bool = False) -> None:
    """Rebuild a tensor in its slot: in place, with the dtype and strides that the model has there.

    Parameters
    ----------
    slot : Slot
        Where to write. The caller opens `writable` first.
    change : LoadedTensor
        The tensor's blocks, on the slot's device.
    read_base : callable
        Reads base tensors.
    holds_base : bool
        Whether the slot holds the base's values now. Then only coded rows and columns are written, if the model has
        the tensor contiguous and in the fine-tune's dtype.
    """
    tensor, spec = slot.tensor, change.entry.spec
    dtype, shape = torch_form(spec)
    backend = backend_for(tensor.device)
    if tensor.dtype == dtype and tensor.is_contiguous():
        reconstruct(change, read_base, backend, bytes_of(tensor), holds_base)
        return
    # Another dtype or other strides: rebuild it beside the model, then convert.
    data = torch.empty(spec.nbytes, dtype=torch.uint8, device=tensor.device)
    reconstruct(change, read_base, backend, data)
    whole = data.view(dtype).view(shape)
    tensor.copy_(whole if tensor.dtype == dtype else convert_dtype(whole, slot.spec.dtype))


@contextmanager
def writable(slots: Iterable[Slot]) -> Iterator[None]:
    """Allow writing to the model's tensors while the context lasts, also to those made in inference mode."""
    for_inference = any(slot.is_for_inference for slot in slots)
    try:
        with torch.inference_mode(for_inference), torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # Autocast caches copies of the old weights in other dtypes.
