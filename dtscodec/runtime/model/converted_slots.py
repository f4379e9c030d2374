"""Slots of checkpoint tensors that a model holds in another form: as a part of a parameter, or converted."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import tensor_spec, torch_form
from dtscodec.evaluation.empty_model import is_empty
from dtscodec.evaluation.weight_groups import WeightGroup
from dtscodec.format.dtypes import TensorSpec
from dtscodec.runtime.model.slots import Slot


class SlotPart(Slot):
    """A checkpoint tensor that is a part of a parameter, such as one expert's matrix in those of all experts.

    Parameters
    ----------
    name : str
        Name in the checkpoint.
    whole : Slot
        The parameter.
    part : Tensor
        A view of the parameter's memory.
    """

    is_whole = False

    def __init__(self, name: str, whole: Slot, part: Tensor) -> None:
        self.name, self.owners = name, whole.owners
        self._whole = whole
        self._place = part.shape, part.stride(), part.storage_offset()

    @property
    def wholes(self) -> tuple[Slot, ...]:
        """The slots of the parameters that it is made from."""
        return (self._whole,)

    @property
    def place(self) -> object:
        """A key that is equal for slots of the same part of the same parameters."""
        return self._whole, *self._place

    @property
    def tensor(self) -> Tensor:
        """The part of the parameter: a view of the model's memory."""
        return self._whole.tensor.as_strided(*self._place)

    @property
    def is_parameter(self) -> bool:
        """True if it is made from parameters, False for buffers."""
        return self._whole.is_parameter

    @property
    def spec(self) -> TensorSpec:
        """Dtype of the parameter, and shape of the part. Raises ModelMismatchError like that of the parameter."""
        return TensorSpec(self._whole.spec.dtype, self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part; the parameter need not have data."""
        return tuple(self._place[0])

    @property
    def device(self) -> torch.device:
        """Device of the parameter."""
        return self._whole.device

    def _found(self) -> Tensor:
        return self._whole._found().detach().as_strided(*self._place)


class ConvertedSlot(Slot):
    """A checkpoint tensor that a model holds in another form, such as a fused one in the parameters of its parts.

    Reading it converts the parameters back, and writing converts the written tensor.

    Parameters
    ----------
    name : str
        Name in the checkpoint.
    wholes : mapping of str to Slot
        The parameters, by the names that `group` has for them.
    group : WeightGroup
        The conversion.
    spec : TensorSpec
        Dtype and shape of the checkpoint's tensor, in the model's dtype.
    """

    is_whole = False
    is_in_place = False

    def __init__(self, name: str, wholes: Mapping[str, Slot], group: WeightGroup, spec: TensorSpec) -> None:
        self.name = name
        self.owners = [owner for whole in wholes.values() for owner in whole.owners]
        self._wholes, self._group, self._spec = wholes, group, spec

    @property
    def wholes(self) -> tuple[Slot, ...]:
        """The slots of the parameters that it is made from."""
        return tuple(self._wholes.values())

    @property
    def place(self) -> object:
        """A key that is equal for slots of the same part of the same parameters."""
        return self.wholes, self._group.sources.index(self.name)

    @property
    def tensor(self) -> Tensor:
        """The checkpoint's tensor, converted back from the parameters: a copy."""
        return self._tensors()[self.name]

    @property
    def form(self) -> tuple[torch.dtype, tuple[int, ...]]:
        """Torch's dtype and shape of the checkpoint's tensor. Raises ModelMismatchError if a parameter was replaced."""
        return self.wholes[0].form[0], torch_form(self._spec)[1]

    def write(self, values: Tensor) -> None:
        """Convert a tensor of the checkpoint, and write it into the parameters."""
        # Converted with the tensors that the parameters are made from besides this one.
        tensors = self._tensors() if len(self._group.sources) > 1 else {}
        for name, tensor in self._group.to_model({**tensors, self.name: values}).items():
            self._wholes[name].write(tensor)

    @property
    def version(self) -> int:
        """A number that changes when one of the parameters is written."""
        return sum(whole.version for whole in self.wholes)

    @property
    def is_for_inference(self) -> bool:
        """True if a parameter was made in inference mode, outside of which it cannot be written."""
        return any(whole.is_for_inference for whole in self.wholes)

    @property
    def is_parameter(self) -> bool:
        """True if it is made from parameters, False for buffers."""
        return all(whole.is_parameter for whole in self.wholes)

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape of the checkpoint's tensor, in the model's dtype."""
        return self._spec

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the checkpoint's tensor."""
        return self._spec.shape

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.wholes[0].device

    def _tensors(self) -> dict[str, Tensor]:
        return self._group.to_checkpoint({name: whole.tensor for name, whole in self._wholes.items()})


def slots_of_group(group: WeightGroup, wholes: Mapping[str, Slot]) -> Iterator[tuple[str, Slot]]:
    """Yield the name and the slot of each of a group's checkpoint tensors.

    Parameters
    ----------
    group : WeightGroup
        The group.
    wholes : mapping of str to Slot
        The slots of its `targets` by name.
    """
    # The operations show which parts are views; for that, a parameter without memory is replaced by one that has some.
    tensors = {name: _with_memory(slot.tensor) for name, slot in wholes.items()}
    memory = {tensor.untyped_storage().data_ptr(): wholes[name] for name, tensor in tensors.items()}
    for name, tensor in group.to_checkpoint(tensors).items():
        # A view of one parameter's memory, or a copy that the operations made.
        whole = memory.get(tensor.untyped_storage().data_ptr())
        if whole is not None:
            yield name, SlotPart(name, whole, tensor)
        else:
            yield name, ConvertedSlot(name, wholes, group, tensor_spec(tensor))


def _with_memory(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu") if is_empty(tensor) else tensor


def first_overlapping(slots: Iterable[Slot], written: Iterable[Slot]) -> Slot | None:
    """Return the first slot of which another one is a part, or which is a part of another one.

    Checkpoint tensors that transformers joins in one parameter overlap the parameter, but not each other.

    Parameters
    ----------
    slots, written : iterable of Slot
        The slots, and the others.
    """
    wholes = {whole for slot in written if not slot.is_whole for whole in slot.wholes}
    parts_of = {slot for slot in written if slot.is_whole}
    for slot in slots:
        if (slot in wholes) if slot.is_whole else not parts_of.isdisjoint(slot.wholes):
            return slot
    return None
