"""The tensors of a model, each once: where weights are written."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.torch_dtypes import tensor_spec
from dtscodec.errors import CheckpointError, ModelMismatchError, Remedy
from dtscodec.format.dtypes import TensorSpec


class Slot:
    """One tensor of a model, whatever number of names it has there.

    Parameters
    ----------
    name : str
        Its first name.
    tensor : Tensor
        What the model has there.

    Attributes
    ----------
    owners : list of (Module, str)
        The layers that have it, each with the attribute by which it does.
    """

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name = name
        self.owners: list[tuple[nn.Module, str]] = []
        self._memory = tensor.data_ptr(), tensor.dtype, tensor.shape

    @property
    def tensor(self) -> Tensor:
        """The tensor, without gradient; it shares the model's memory.

        Raises
        ------
        ModelMismatchError
            The model has another tensor there than it had.
        """
        for module, attribute in self.owners:
            tensor: Tensor = getattr(module, attribute)
            if (tensor.data_ptr(), tensor.dtype, tensor.shape) != self._memory:
                raise ModelMismatchError(
                    f"{self.name}: expected the tensor that the model had, got another one",
                    Remedy("after .to(), .half() and the like take the packs off and put them on again"),
                )
        return tensor.detach()

    @property
    def version(self) -> int:
        """What changes when somebody writes the tensor, as far as torch tells."""
        tensor = self._found()
        return 0 if tensor.is_inference() else tensor._version

    @property
    def is_for_inference(self) -> bool:
        """Whether it was made in inference mode, outside of which it cannot be written."""
        return self._found().is_inference()

    @property
    def is_parameter(self) -> bool:
        """Whether it is one, and no buffer."""
        return isinstance(self._found(), nn.Parameter)

    @property
    def spec(self) -> TensorSpec:
        """Its dtype and shape.

        Raises
        ------
        ModelMismatchError
            It is no plain tensor with data.
        """
        try:
            return tensor_spec(self._found())
        except CheckpointError as error:
            raise ModelMismatchError(f"{self.name}: {error}") from error

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, of whatever kind it is."""
        return tuple(self._found().shape)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self._found().device

    def _found(self) -> Tensor:
        module, attribute = self.owners[0]
        tensor: Tensor = getattr(module, attribute)
        return tensor


def slots_of(model: nn.Module) -> dict[str, Slot]:
    """The parameters and buffers of a model by all their names; tied ones are one slot."""
    slots: dict[str, Slot] = {}
    known: dict[object, Slot] = {}
    for name, module, attribute, tensor in _tensors(model):
        slot = slots[name] = known.setdefault(memory_of(tensor), Slot(name, tensor))
        if (module, attribute) not in slot.owners:
            slot.owners.append((module, attribute))
    return slots


def memory_of(tensor: Tensor) -> object:
    """What tensors have in common if they are the same memory seen the same way; an empty one is only itself."""
    if not tensor.numel() or tensor.is_meta:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, tensor
