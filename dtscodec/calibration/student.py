"""A model whose weights are functions of the numbers that a pack stores."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from dtscodec.calibration.elementwise_delta import ElementwiseDelta
from dtscodec.calibration.fitted_layers import can_be_fitted, fit_layer
from dtscodec.calibration.latent_codes import LatentCodes
from dtscodec.calibration.recode import storable_numbers
from dtscodec.calibration.weight_gradients import WeightGradient
from dtscodec.checkpoints.torch_dtypes import torch_form
from dtscodec.decoding.decoded import Decoded
from dtscodec.decoding.reconstruct import LoadedTensor, load_tensors, reconstruct
from dtscodec.evaluation.empty_model import is_empty
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.streams import Streams
from dtscodec.kernels.packed import Packed, PackedFactors
from dtscodec.kernels.select import backend_for
from dtscodec.runtime.model.slots import Slot, writable, write_slot


class Student:
    """A model whose weights are decoded from a pack, and whose levels, scales and elements can be changed.

    Change `numbers` and `elements` in place, then call `rebuild`. At the end, `quantize_elements` and `round_numbers`
    turn them into values that a pack can store, and `streams` returns the streams to store.

    Parameters
    ----------
    model : nn.Module
        A model, or a part of one, in float32 and on one device. Its parameters' `requires_grad` is set here.
    weights : mapping of Slot to str
        Its weights that are fitted, with their names in the pack: whole parameters that are coded; see `coded_weights`.
    decoded : Decoded
        The pack on its base, on the CPU.

    Attributes
    ----------
    numbers : float32 [count]
        Levels, scales and norms of the coded blocks of these weights.
    elements : float32 [count]
        Deltas that are coded element by element, before they are quantized again.
    units : float32 [count]
        For each element, the root mean square of its tensor's delta.
    number_gradient, element_gradient : float32 [count]
        Gradients of `numbers` and `elements`: the sums over all backward passes since `clear_gradients`.
    codes : LatentCodes or None
        The codes of the low-rank blocks, after `free_codes`.
    """

    def __init__(self, model: nn.Module, weights: Mapping[Slot, str], decoded: Decoded) -> None:
        self.model, reader = model, decoded.pack.reader
        device = next(iter(weights)).device
        loaded = load_tensors(reader, sorted(weights.values()), device)
        self._changes: Mapping[Slot, LoadedTensor] = {slot: loaded[name] for slot, name in weights.items()}
        self._slots = {name: slot for slot, name in weights.items()}
        self._streams = {name: [streams for _, _, streams in reader.blocks(name)] for name in weights.values()}
        self._numbers_dtype = reader.numbers_dtype
        self._decoded, self._device = decoded, device
        # The numbers of all packed blocks are in one store.
        payloads = (block.payload for change in self._changes.values() for block in change.blocks)
        self.numbers: Tensor = next(one for one in payloads if isinstance(one, Packed)).store.numbers
        # Biases, norms and the like: their elements are free during the fit.
        free = {slot: change for slot, change in self._changes.items() if ElementwiseDelta.accepts(change)}
        self._elements = {slot: ElementwiseDelta(change, self._read_base) for slot, change in free.items()}
        self.elements, self.units = ElementwiseDelta.concatenate(list(self._elements.values()), device)
        self.codes: LatentCodes | None = None
        self.number_gradient, self.element_gradient = torch.zeros_like(self.numbers), torch.zeros_like(self.elements)
        # Biases of one layer alone, which can be corrected.
        self._biases = {
            slot.owners[0][0]: slot
            for slot in self._elements
            if len(slot.owners) == 1 and slot.owners[0][1] == "bias" and len(slot.shape) == 1
        }
        # Only coded weights get gradients, which become those of numbers and elements as soon as they are known.
        model.requires_grad_(False)
        self._layers: dict[nn.Module, WeightGradient] = {}
        for slot, change in self._changes.items():
            self._collect(slot, change)

    def _collect(self, slot: Slot, change: LoadedTensor) -> None:
        """Let backward passes give the gradient of a weight to the numbers or elements that it is decoded from."""
        elements = self._elements.get(slot)
        total = self.number_gradient if elements is None else self.element_gradient
        gradient = WeightGradient(change, total, elements, lambda: self.codes)
        if gradient.shape == slot.shape and can_be_fitted(slot.owners):
            for module, _ in slot.owners:
                fit_layer(module, gradient)
                self._layers[module] = gradient
            return
        # Of any other weight autograd forms the gradient; only one at a time is in memory.
        module, attribute = slot.owners[0]
        weight: Tensor = getattr(module, attribute)
        weight.requires_grad_(True)
        weight.register_post_accumulate_grad_hook(partial(_take, gradient))  # type: ignore[no-untyped-call]

    def gradient_of(self, layer: nn.Module) -> WeightGradient | None:
        """Return the gradient of the weight of a linear layer or an embedding; None if the weight is not fitted.

        Parameters
        ----------
        layer : nn.Module
            A layer of the model.
        """
        return self._layers.get(layer)

    def _read_base(self, name: str) -> tuple[TensorSpec, Tensor]:
        """Return spec and bytes of a base tensor, which is read anew: mapped files take no memory."""
        spec, data = self._decoded.read_base(name)
        return spec, data.to(self._device)

    def free_codes(self) -> LatentCodes:
        """Make latent numbers of the codes of all low-rank blocks, and return them; they get gradients from now on."""
        codes = self.codes = LatentCodes([packed for _, _, packed in self.factors()])
        return codes

    def factors(self) -> Iterator[tuple[str, int, PackedFactors]]:
        """Yield the low-rank blocks of the weights: name of the tensor in the pack, first row, and factors."""
        for name, slot in self._slots.items():
            for block in self._changes[slot].blocks:
                if isinstance(block.payload, PackedFactors):
                    yield name, block.row, block.payload

    def count(self, with_codes: bool, with_elements: bool) -> int:
        """Return how many levels and scales, codes and elements are fitted: those that have gradients.

        Norms have none; they are computed when the pack is written.

        Parameters
        ----------
        with_codes : bool
            Count the codes of matrices, too.
        with_elements : bool
            Count the elements of biases and norms, too.
        """
        sizes = [
            block.block.number_count(change.entry.columns) - block.block.has_norm
            for change in (change for slot, change in self._changes.items() if slot not in self._elements)
            for block in change.blocks
            if block.block.is_coded
        ]
        codes = sum(packed.block.rank * sum(packed.coded_shape) for _, _, packed in self.factors())
        return sum(sizes) + with_codes * codes + with_elements * len(self.elements)

    def read(self, name: str) -> Tensor:
        """Return a tensor of the decoded fine-tune, as `numbers` and `elements` are now.

        Parameters
        ----------
        name : str
            Its name in the pack, whether it is fitted or not.
        """
        name = self._decoded.pack.reader.entry(name).tied_to or name
        slot = self._slots.get(name)
        if slot is None:
            return self._decoded[name].to(self._device)
        if slot in self._elements:
            return self._elements[slot].weight().view(slot.shape)
        change = self._changes[slot]
        dtype, shape = torch_form(change.entry.spec)
        data = torch.empty(change.entry.spec.nbytes, dtype=torch.uint8, device=self._device)
        reconstruct(change, self._read_base, backend_for(self._device), data)
        return data.view(dtype).view(shape)

    def rebuild(self) -> None:
        """Write the weights that `numbers` and `elements` decode to into the model, where it has memory for them."""
        held = {slot: change for slot, change in self._changes.items() if not is_empty(slot.tensor)}
        with writable(held):
            for slot, change in held.items():
                if slot in self._elements:
                    slot.tensor.copy_(self._elements[slot].weight().view(slot.shape))
                else:
                    write_slot(slot, change, self._read_base)

    def clear_gradients(self) -> None:
        """Set the gradients to zero, to which backward passes then add."""
        self.number_gradient.zero_()
        self.element_gradient.zero_()
        if self.codes is not None:
            self.codes.gradient.zero_()

    def has_bias(self, module: nn.Module) -> bool:
        """Return whether a layer has a bias of its own that is coded element by element."""
        return module in self._biases

    def shift_bias(self, module: nn.Module, by: Tensor) -> None:
        """Add to a layer's bias, and quantize it again; `has_bias` must hold.

        Parameters
        ----------
        module : nn.Module
            The layer.
        by : float32 [d_out]
            The summand.
        """
        slot = self._biases[module]
        self._elements[slot].shift(by)
        self._quantize(slot)

    def quantize_elements(self) -> None:
        """Quantize `elements` again: they become values that a pack can store."""
        for slot in self._elements:
            self._quantize(slot)

    def _quantize(self, slot: Slot) -> None:
        name = self._changes[slot].entry.name
        (stored,) = self._streams[name]
        self._streams[name] = [self._elements[slot].quantize(stored, self._numbers_dtype)]

    def settle_codes(self) -> None:
        """Take the codes as they are now into the streams to store; they get no gradients any more."""
        self.codes = None
        for name, slot in self._slots.items():
            stored = self._streams[name]
            for at, block in enumerate(self._changes[slot].blocks):
                if isinstance(block.payload, PackedFactors):
                    bands = tuple(codes.cpu().numpy().tobytes() for codes in block.payload.band_codes())
                    stored[at] = replace(stored[at], bands=bands)

    def round_numbers(self) -> None:
        """Round `numbers` to the pack's dtype and sort levels: they become values that a pack can store."""
        for slot, change in self._changes.items():
            if slot not in self._elements:
                self._round(change)

    def _round(self, change: LoadedTensor) -> None:
        stored = self._streams[change.entry.name]
        for at, block in enumerate(change.blocks):
            if isinstance(block.payload, Packed):
                # The numbers of a block are a span of the store's.
                place, columns = block.payload.number_span, change.entry.columns
                numbers = self.numbers[place].cpu().numpy()
                rounded = storable_numbers(block.payload.block, columns, numbers, self._numbers_dtype)
                self.numbers[place] = torch.from_numpy(rounded).to(self.numbers.device)
                stored[at] = replace(stored[at], numbers=rounded)

    def streams(self) -> Mapping[str, list[Streams]]:
        """Return the streams of the blocks of every coded tensor, as last quantized and rounded."""
        return self._streams


def _take(gradient: WeightGradient, weight: Tensor) -> None:
    assert weight.grad is not None
    gradient.add(weight.grad)
    weight.grad = None
