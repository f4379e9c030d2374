"""The tensors of a model, each once, whatever number of names it has."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.torch_dtypes import tensor_spec
from dtscodec.errors import CheckpointError, ModelMismatchError, Remedy
from dtscodec.format.dtypes import TensorSpec


class Slot:
    """One parameter or buffer of a model, whatever number of names it has.

    Parameters
    ----------
    name : str
        Its first name.
    tensor : Tensor
        The model's tensor. A slot remembers its memory, to notice when the model gets another tensor there.

    Attributes
    ----------
    owners : list of (Module, str)
        The modules that own it, each with the attribute that holds it.
    """

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name = name
        self.owners: list[tuple[nn.Module, str]] = []
        self._memory = tensor.data_ptr(), tensor.dtype, tensor.shape

    @property
    def tensor(self) -> Tensor:
        """The model's tensor, detached: a view of the same memory.

        Raises
        ------
        ModelMismatchError
            The model's tensor was replaced.
        """
        for module, attribute in self.owners:
            tensor: Tensor = getattr(module, attribute)
            if (tensor.data_ptr(), tensor.dtype, tensor.shape) != self._memory:
                raise ModelMismatchError(
                    f"{self.name}: expected the tensor that the model had before, got another one",
                    Remedy("make a new Switcher, or attach again, after .to(), .half() and the like"),
                )
        return tensor.detach()

    @property
    def version(self) -> int:
        """A number that changes when the tensor is written; always 0 in inference mode, where torch does not count."""
        tensor = self._found()
        return 0 if tensor.is_inference() else tensor._version

    @property
    def is_for_inference(self) -> bool:
        """Whether the tensor was made in inference mode, outside of which it cannot be written."""
        return self._found().is_inference()

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter rather than a buffer."""
        return isinstance(self._found(), nn.Parameter)

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape of the tensor.

        Raises
        ------
        ModelMismatchError
            It has no data, or is not a dense tensor.
        """
        try:
            return tensor_spec(self._found())
        except CheckpointError as error:
            raise ModelMismatchError(f"{self.name}: {error}") from error

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
        tensor: Tensor = getattr(module, attribute)
        return tensor


def slots_of(model: nn.Module) -> dict[str, Slot]:
    """Return the parameters and buffers of a model by all their names. Tied tensors share a slot."""
    slots: dict[str, Slot] = {}
    known: dict[object, Slot] = {}
    for name, module, attribute, tensor in _tensors(model):
        slot = slots[name] = known.setdefault(memory_of(tensor), Slot(name, tensor))
        if (module, attribute) not in slot.owners:
            slot.owners.append((module, attribute))
    return slots


def memory_of(tensor: Tensor) -> object:
    """Return a key that is equal for tensors that are the same view of the same memory.

    Tensors without memory (empty, or on the meta device) are equal to themselves only.
    """
    if not tensor.numel() or tensor.is_meta:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, tensor
