"""Base class of side branches, which add the deltas of a batch's tasks to the output of a layer."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dtscodec.checkpoints.torch_dtypes import torch_form
from dtscodec.decoding.reconstruct import LoadedBlock, LoadedTensor, reconstruct
from dtscodec.errors import ModelMismatchError
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.backend import Rows
from dtscodec.kernels.packed import Packed, PackedFactors
from dtscodec.kernels.reference import wide_dtype
from dtscodec.kernels.select import backend_for
from dtscodec.kernels.unpack import unpack_delta
from dtscodec.runtime.branches.request_batch import RequestBatch, TaskRequests
from dtscodec.runtime.model.slots import Slot
from dtscodec.runtime.resident_pack import ResidentPack

ReadTaskBase: TypeAlias = Callable[[ResidentPack, torch.device, str], tuple[TensorSpec, Tensor]]
"""Reads a base tensor for a task, on a device, given its name: dtype and shape, and bytes.

With task and device bound it is a `dtscodec.decoding.reconstruct.ReadBase`."""


class SideBranch(ABC):
    """Base class of the side branches of a layer.

    Low-rank deltas are applied by their factors, as a LoRA is; a delta without factors is formed for each call.

    Parameters
    ----------
    module : nn.Module
        The layer.
    slots : mapping of str to Slot
        The slots of its parameters, by attribute.
    read_base : callable
        Reads base tensors, for tensors that must be rebuilt as a whole.
    """

    def __init__(self, module: nn.Module, slots: Mapping[str, Slot], read_base: ReadTaskBase) -> None:
        self.module, self.slots = module, slots
        self.backend = backend_for(next(iter(slots.values())).device)
        self._read_base = read_base

    @abstractmethod
    def check(self, attribute: str, entry: TensorEntry) -> None:
        """Check that the branch can compute with a task's tensor.

        Parameters
        ----------
        attribute : {"weight", "bias"}
            The layer's parameter that the tensor belongs to.
        entry : TensorEntry
            The task's tensor.

        Raises
        ------
        ModelMismatchError
            It cannot.
        """

    @abstractmethod
    def forward(self, x: Tensor, out: Tensor, batch: RequestBatch) -> Tensor:
        """Return the layer's output for the tasks of a batch.

        Parameters
        ----------
        x : Tensor
            The layer's input. Its first dimension is that of the requests.
        out : Tensor
            The layer's output for the base. It may be overwritten.
        batch : RequestBatch
            The requests by task.
        """

    def changes(
        self, attribute: str, batch: RequestBatch, leading: Sequence[int]
    ) -> Iterator[tuple[TaskRequests, LoadedTensor, Rows]]:
        """Yield the tasks of a batch that change a parameter, each with its tensor and its rows.

        Parameters
        ----------
        attribute : {"weight", "bias"}
            The parameter.
        batch : RequestBatch
            The requests by task.
        leading : sequence of int
            As of `RequestBatch.rows`.
        """
        slot = self.slots.get(attribute)
        for group in batch.groups:
            if slot is not None and slot in group.resident.changes:
                yield group, group.resident.loaded(slot), batch.rows(group, leading, slot)

    def rebuild(self, resident: ResidentPack, change: LoadedTensor) -> Tensor:
        """Return a task's whole tensor.

        Parameters
        ----------
        resident : ResidentPack
            The task's pack.
        change : LoadedTensor
            A tensor of it, on the layer's device.

        Returns
        -------
        Tensor
            In the fine-tune's dtype and shape.
        """
        dtype, shape = torch_form(change.entry.spec)
        out = torch.empty(change.entry.spec.nbytes, dtype=torch.uint8, device=self.device)
        reconstruct(change, partial(self._read_base, resident, self.device), self.backend, out)
        return out.view(dtype).view(shape)

    def delta(self, attribute: str, resident: ResidentPack, change: LoadedTensor) -> Tensor:
        """Return a task's delta of a parameter.

        Parameters
        ----------
        attribute : {"weight", "bias"}
            The parameter.
        resident : ResidentPack
            The task's pack.
        change : LoadedTensor
            The task's tensor for the parameter.

        Returns
        -------
        float32 or float64 Tensor
            Of the parameter's shape.
        """
        # Deltas are formed in at least float32, whatever the dtype of the layer.
        own = self.slots[attribute].tensor
        wide = wide_dtype(own.dtype)
        # Not the base's own rows plus a delta: rebuild the tensor, and subtract the base.
        if not is_additive(change.entry):
            return self.rebuild(resident, change).to(wide) - own.to(wide)
        # One block of values that covers the tensor is the delta itself; else add up the blocks.
        height, columns = change.entry.spec.matrix(change.entry.split)
        payload = change.blocks[0].payload
        if isinstance(payload, Packed) and payload.is_whole and len(change.blocks) == 1:
            return unpack_delta(payload, wide).view(change.entry.spec.shape)
        delta = torch.zeros(height, columns, dtype=wide, device=self.device)
        for block in change.blocks:
            add_delta(block, delta[block.row : block.row + block.block.height])
        return delta.view(change.entry.spec.shape)

    @property
    def device(self) -> torch.device:
        """The layer's device."""
        return next(iter(self.slots.values())).device


def is_additive(entry: TensorEntry) -> bool:
    """Return whether every block of a tensor is the base's same rows plus a delta, so that the delta can be added."""
    return all((base := block.base) is not None and base.first == row for row, block in entry.placed())


def has_factors(change: LoadedTensor) -> bool:
    """Return whether the delta of a tensor consists of factors, so that it need not be formed."""
    # A block without payload equals the base, so it adds nothing.
    are_factors = [block.payload is None or isinstance(block.payload, PackedFactors) for block in change.blocks]
    return change.entry.split == 1 and all(are_factors) and is_additive(change.entry)


def single_factors(change: LoadedTensor) -> PackedFactors | None:
    """Return the factors of a tensor that is a single low-rank block, or None for any other tensor."""
    payload = change.blocks[0].payload
    return payload if len(change.blocks) == 1 and has_factors(change) and isinstance(payload, PackedFactors) else None


def add_delta(loaded: LoadedBlock, out: Tensor) -> None:
    """Add the delta of a block to its rows of the tensor's delta, float32 or float64 [height, columns], in place."""
    if isinstance(loaded.payload, Packed):
        out[loaded.payload.where()] += unpack_delta(loaded.payload, out.dtype)


def check_same_shape(slot: Slot, entry: TensorEntry) -> None:
    """Raise ModelMismatchError unless a task's tensor has the layer's shape, and both are floating-point."""
    if entry.spec.shape != slot.shape or not {entry.spec.dtype, slot.spec.dtype} <= CODED_DTYPES:
        raise ModelMismatchError(f"{slot.name}: expected {slot.spec}, got {entry.spec} in the pack")


def has_single_input(layer: nn.Module) -> bool:
    """Return whether a layer's `forward` takes one argument."""
    return len(inspect.signature(layer.forward).parameters) == 1
