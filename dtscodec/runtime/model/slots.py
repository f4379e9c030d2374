"""Slots: the tensors of a model, each with all its names; and writing packs into them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import dtype_code, tensor_spec, torch_form
from dtscodec.decoding.loaded_exact import LoadedExact
from dtscodec.decoding.reconstruct import LoadedTensor, ReadBase, reconstruct
from dtscodec.errors import CheckpointError, ModelMismatchError, Remedy
from dtscodec.evaluation.empty_model import is_empty
from dtscodec.format.dtypes import TensorSpec
from dtscodec.kernels.select import backend_for

_QUANTIZED = Remedy("load the model without quantization, or pass its quantization_config to dtscodec.from_pretrained")
_REMEDIES = {
    "Params4bit": _QUANTIZED,
    "Int8Params": _QUANTIZED,
    "DTensor": Remedy("use the pack before the model is sharded"),
}
"""Remedies for tensors that are not plain, by the names of their classes."""


class Slot:
    """One parameter or buffer of a model, with all its names; subclasses are made from one or several.

    Parameters
    ----------
    name : str
        Its first name.
    tensor : Tensor
        The model's tensor. Its address, dtype and shape are recorded, to detect that the model's tensor was replaced. A
        tensor without memory (`dtscodec.evaluation.empty_model`) may be given memory at any address later.

    Attributes
    ----------
    owners : list of (Module, str)
        The modules that own it, each with the attribute that holds it.
    """

    is_whole = True
    """True if the slot is one parameter or buffer."""
    is_in_place = True
    """True if `tensor` is the model's memory, so that writing to it changes the model."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name = name
        self.owners: list[tuple[nn.Module, str]] = []
        self._memory = tensor.data_ptr(), tensor.dtype, tensor.shape

    @property
    def wholes(self) -> "tuple[Slot, ...]":
        """The slots of the parameters and buffers that it is made from."""
        return (self,)

    @property
    def place(self) -> object:
        """A key that is equal for slots of the same part of the same parameters."""
        return self

    @property
    def tensor(self) -> Tensor:
        """The model's tensor, detached: a view of the same memory.

        Raises
        ------
        ModelMismatchError
            The model's tensor was replaced.
        """
        for module, attribute in self.owners:
            tensor = held_tensor(module, attribute)
            # The same memory, dtype and shape: writing in place is allowed, replacing the tensor is noticed.
            address, dtype, shape = self._memory
            if (tensor.dtype, tensor.shape) != (dtype, shape) or address not in (tensor.data_ptr(), 0):
                raise ModelMismatchError(
                    f"{self.name}: expected the tensor that the model had before, got another",
                    Remedy("make a new Switcher, or attach again, after .to(), .half() and similar calls"),
                )
        return tensor.detach()

    def write(self, values: Tensor) -> None:
        """Write a tensor of the slot's shape and dtype. The caller opens `writable` first."""
        self.tensor.copy_(values)

    @property
    def form(self) -> tuple[torch.dtype, tuple[int, ...]]:
        """Torch's dtype and shape of the tensor. Raises ModelMismatchError like `tensor`."""
        tensor = self.tensor
        return tensor.dtype, tuple(tensor.shape)

    @property
    def version(self) -> int:
        """A number that changes when the tensor is written; always 0 in inference mode, where torch does not count."""
        tensor = self._found()
        return 0 if tensor.is_inference() else tensor._version

    @property
    def is_for_inference(self) -> bool:
        """True if the tensor was made in inference mode, outside of which it cannot be written."""
        return self._found().is_inference()

    @property
    def is_parameter(self) -> bool:
        """True for a parameter, False for a buffer."""
        return isinstance(self._found(), nn.Parameter)

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape of the tensor.

        Raises
        ------
        ModelMismatchError
            It has no data, or is not a dense tensor.
        """
        if self._found().is_meta:
            problem = f"{self.name}: expected a weight in memory, got one that is offloaded or was never loaded"
            raise ModelMismatchError(problem, Remedy("load the weights first, without offloading"))
        try:
            return tensor_spec(self._found())
        except CheckpointError as error:
            remedy = error.remedy or _REMEDIES.get(type(self._found()).__name__)
            raise ModelMismatchError(f"{self.name}: {error.problem}", remedy) from error

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor, which need not have data."""
        return tuple(self._found().shape)

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self._found().device

    def _found(self) -> Tensor:
        module, attribute = self.owners[0]
        return held_tensor(module, attribute)


def slots_of(model: nn.Module) -> dict[str, Slot]:
    """Return the slots of a model's parameters and buffers by all their names. Tied tensors share a slot."""
    slots: dict[str, Slot] = {}
    known: dict[object, Slot] = {}
    for name, module, attribute, tensor in _tensors(model):
        # Names of the same memory share the slot of the first.
        slot = slots[name] = known.setdefault(memory_of(tensor), Slot(name, tensor))
        if (module, attribute) not in slot.owners:
            slot.owners.append((module, attribute))
    return slots


def held_tensor(module: nn.Module, attribute: str) -> Tensor:
    """Return a module's parameter or buffer, without running a property of that name."""
    tensor = module._parameters.get(attribute, module._buffers.get(attribute))
    held: Tensor = getattr(module, attribute) if tensor is None else tensor
    return held


def are_same_rows(slot: Slot, row: int, other: Slot, first: int, columns: int) -> bool:
    """Return whether rows of two slots are the same memory.

    Parameters
    ----------
    slot, other : Slot
        The slots.
    row, first : int
        The first row in `slot`, and in `other`.
    columns : int
        Columns of both, viewed as matrices.
    """
    if slot is other:
        return row == first
    if not (slot.is_in_place and other.is_in_place) or set(slot.wholes).isdisjoint(other.wholes):
        return False
    one, two = slot.tensor, other.tensor
    if is_empty(one) or is_empty(two) or not (one.is_contiguous() and two.is_contiguous()):
        return False
    return one.data_ptr() + row * columns * one.element_size() == two.data_ptr() + first * columns * two.element_size()


def memory_of(tensor: Tensor) -> object:
    """Return a key that is equal for tensors that are the same view of the same memory.

    Tensors without memory (without elements, on the meta device, or emptied) are equal to themselves only.
    """
    if not tensor.numel() or tensor.is_meta or is_empty(tensor):
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, tensor


def write_slot(slot: Slot, change: LoadedTensor | LoadedExact, read_base: ReadBase, holds_base: bool = False) -> None:
    """Rebuild a tensor in its slot: in place, with the dtype and strides that the model has there.

    Parameters
    ----------
    slot : Slot
        Where to write. The caller opens `writable` first.
    change : LoadedTensor or LoadedExact
        The tensor's blocks, on the slot's device; or with its chunks, in main memory.
    read_base : callable
        Reads base tensors.
    holds_base : bool
        Whether the slot holds the base's values now. Then only coded rows and columns are written, if the model has
        the tensor contiguous and in the fine-tune's dtype.
    """
    spec = change.entry.spec
    dtype, shape = torch_form(spec)
    found, _ = slot.form
    backend = backend_for(slot.device)
    if isinstance(change, LoadedExact):
        exact = change.decode(read_base, slot.device).view(dtype).view(shape)
        slot.write(exact if found == dtype else convert_dtype(exact, dtype_code(found)))
        return
    if slot.is_in_place and found == dtype and (tensor := slot.tensor).is_contiguous():
        reconstruct(change, read_base, backend, bytes_of(tensor), holds_base)
        return
    # Where dtype, strides or form differ: rebuild the tensor in memory of its own, then convert it.
    data = torch.empty(spec.nbytes, dtype=torch.uint8, device=slot.device)
    reconstruct(change, read_base, backend, data)
    whole = data.view(dtype).view(shape)
    slot.write(whole if found == dtype else convert_dtype(whole, dtype_code(found)))


@contextmanager
def writable(slots: Iterable[Slot]) -> Iterator[None]:
    """Allow writing to slots while the context lasts, also to those of tensors made in inference mode."""
    for_inference = any(slot.is_for_inference for slot in slots)
    try:
        with torch.inference_mode(for_inference), torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # Autocast caches copies of the old weights in other dtypes.


def bytes_of(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in C order: uint8 [nbytes], a view if it is contiguous."""
    return tensor.contiguous().view(-1).view(torch.uint8)
