"""One changed tensor -> the model's memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import torch_form
from dtscodec.decoding.packed_tensors import LoadedTensor
from dtscodec.decoding.reconstruct import ReadBase, reconstruct
from dtscodec.kernels.select import backend_for
from dtscodec.runtime.running_base import bytes_of
from dtscodec.runtime.slots import Slot


def write_slot(slot: Slot, change: LoadedTensor, read_base: ReadBase, holds_base: bool = False) -> None:
    """Rebuild a tensor in its slot: in place, in the dtype and strides that the model has there.

    Where it `holds_base` already, only what is coded need be written.
    """
    tensor, spec = slot.tensor, change.entry.spec
    dtype, shape = torch_form(spec)
    backend = backend_for(tensor.device)
    if tensor.dtype == dtype and tensor.is_contiguous():
        reconstruct(change, read_base, backend, bytes_of(tensor), holds_base)
        return
    data = torch.empty(spec.nbytes, dtype=torch.uint8, device=tensor.device)
    reconstruct(change, read_base, backend, data)
    whole = data.view(dtype).view(shape)
    tensor.copy_(whole if tensor.dtype == dtype else convert_dtype(whole, slot.spec.dtype))


@contextmanager
def writable(slots: Iterable[Slot]) -> Iterator[None]:
    """A context in which the model's tensors may be written, whether they were made for inference only or not."""
    for_inference = any(slot.is_for_inference for slot in slots)
    try:
        with torch.inference_mode(for_inference), torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # It holds copies of weights in other dtypes.
