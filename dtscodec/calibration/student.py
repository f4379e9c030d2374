"""A model whose weights follow a pack's numbers."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.calibration.gradients import add_gradient
from dtscodec.codec.decoded import Decoded
from dtscodec.codec.loaded import LoadedTensor, load_tensors
from dtscodec.codec.pack import Pack
from dtscodec.codec.renumber import ordered
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import LowRank, Values
from dtscodec.format.dtypes import TensorSpec
from dtscodec.kernels.packed import Packed
from dtscodec.runtime.match import match
from dtscodec.runtime.slots import Slot, slots_of
from dtscodec.runtime.write import write, writing

Floats = NDArray[np.float32]


class Student:
    """A model with a pack's weights, on one device; as its numbers move, so do they.

    Parameters
    ----------
    model : nn.Module
        In float32, with the weights that the pack decodes to. Its parameters' `requires_grad` is set here.
    decoded : Decoded
        The pack on its base, on the CPU.

    Attributes
    ----------
    model : nn.Module
    numbers : float32 [count]
        Levels, scales and norms of all coded blocks that the model has a place for.

    Raises
    ------
    ModelMismatchError
        The pack does not fit the model.
    EncodeError
        Nothing in the pack is coded.
    """

    def __init__(self, model: Any, decoded: Decoded) -> None:
        self.model, pack = model, decoded.pack
        changed = match(pack, slots_of(model), decoded.base.specs if decoded.base else {}).changed
        coded = {slot: name for slot, name in changed.items() if _is_coded(pack, name)}
        if not coded:
            raise EncodeError(f"{pack.path or 'pack'}: expected coded tensors, got none: nothing is to be fitted")
        device = next(iter(coded)).device
        loaded = load_tensors(pack.reader, sorted(coded.values()), device)
        self._changes: Mapping[Slot, LoadedTensor] = {slot: loaded[name] for slot, name in coded.items()}
        self._bases = {name: _base_tensor(decoded, name, device) for name in self._base_names()}
        self.numbers: Tensor = self._packed()[0].store.numbers
        model.requires_grad_(False)
        for slot, change in self._changes.items():
            module, attribute = slot.owners[0]
            weight: Tensor = getattr(module, attribute)
            weight.requires_grad_(True)
            weight.register_post_accumulate_grad_hook(partial(self._fold, change))  # type: ignore[no-untyped-call]

    def _base_names(self) -> set[str]:
        blocks = (block.block for change in self._changes.values() for block in change.blocks)
        return {base.name for block in blocks if (base := getattr(block, "base", None)) is not None}

    def _packed(self) -> list[Packed]:
        payloads = (block.payload for change in self._changes.values() for block in change.blocks)
        return [payload for payload in payloads if isinstance(payload, Packed)]

    def rebuild(self) -> None:
        """Write the weights that the numbers stand for into the model."""
        with writing(self._changes):
            for slot, change in self._changes.items():
                write(slot, change, self._bases.__getitem__)

    def gradient(self, loss: Tensor) -> Tensor:
        """Gradient of the numbers: float32 [count]. No more than one weight's gradient is in memory at a time."""
        self.numbers.grad = torch.zeros_like(self.numbers)
        self.numbers.requires_grad_(True)
        try:
            torch.autograd.backward(loss)
        finally:
            self.numbers.requires_grad_(False)
        return self.numbers.grad

    @staticmethod
    def _fold(change: LoadedTensor, weight: Tensor) -> None:
        """Turn a weight's gradient into that of its numbers, as soon as it is known."""
        assert weight.grad is not None
        rows, weight.grad = weight.grad.reshape(change.entry.spec.matrix(change.entry.split)), None
        for block in change.blocks:
            if isinstance(block.payload, Packed):
                add_gradient(block.payload, rows[block.row : block.row + block.block.height])

    def settle(self, dtype: str) -> None:
        """Make the numbers such as a pack can hold, stored in a dtype of `NUMBER_DTYPES`."""
        for change in self._changes.values():
            for block in change.blocks:
                if isinstance(block.payload, Packed):
                    place = self._place(block.payload, block.block, change.entry.columns)
                    settled = ordered(block.block, self.numbers[place].cpu().numpy(), dtype)
                    self.numbers[place] = torch.from_numpy(settled).to(self.numbers.device)

    def by_tensor(self) -> dict[str, list[Floats]]:
        """The numbers of every block of every coded tensor; none for blocks that have none."""
        return {
            change.entry.name: [
                self.numbers[self._place(block.payload, block.block, change.entry.columns)].cpu().numpy()
                if isinstance(block.payload, Packed)
                else np.empty(0, np.float32)
                for block in change.blocks
            ]
            for change in self._changes.values()
        }

    @staticmethod
    def _place(payload: Packed, block: Any, columns: int) -> slice:
        return slice(payload.numbers_at, payload.numbers_at + block.number_count(columns))


def _base_tensor(decoded: Decoded, name: str, device: torch.device) -> tuple[TensorSpec, Tensor]:
    spec, data = decoded.read_base(name)
    return spec, data.to(device)


def _is_coded(pack: Pack, name: str) -> bool:
    return any(isinstance(block, LowRank | Values) for block in pack.reader.entry(name).blocks)
