"""A delta that is coded element by element, during a fit: free elements that are quantized again at the end."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import torch_dtype
from dtscodec.decoding.reconstruct import LoadedTensor, ReadBase
from dtscodec.encoding.presets.best import rounded
from dtscodec.format.blocks import Values
from dtscodec.format.blocks.values import dequantize_values
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.kernels.packed import PackedValues
from dtscodec.kernels.unpack import unpack_values
from dtscodec.quantize.scalar import quantize_elements


class ElementwiseDelta:
    """The coded elements of a tensor that is one `values` block on its base, such as a bias or a norm.

    Parameters
    ----------
    change : LoadedTensor
        The tensor; `accepts` must hold for it.
    read_base : callable
        Returns spec and bytes (uint8 [nbytes]) of a base tensor by its name.

    Attributes
    ----------
    values : float32 [coded rows * columns]
        The delta of the coded elements; a view into a longer tensor after `concatenate`.
    """

    def __init__(self, change: LoadedTensor, read_base: ReadBase) -> None:
        (loaded,) = change.blocks
        assert isinstance(loaded.block, Values)
        assert isinstance(loaded.payload, PackedValues)
        assert loaded.block.base is not None
        self._block, self._packed, self._columns = loaded.block, loaded.payload, change.entry.columns
        # The base rows that the block is a delta from, as float32 [height, columns].
        spec, data = read_base(loaded.block.base.name)
        first = loaded.block.base.first
        base = data.view(torch_dtype(spec.dtype)).view(-1, self._columns)[first : first + loaded.block.height]
        self._base = base.float()
        self.values = unpack_values(loaded.payload).flatten()
        self._begin = 0

    @staticmethod
    def accepts(change: LoadedTensor) -> bool:
        """Return whether a tensor is a single `values` block on a base tensor."""
        block = change.blocks[0].block
        return len(change.blocks) == 1 and isinstance(block, Values) and block.base is not None

    @staticmethod
    def concatenate(deltas: "Sequence[ElementwiseDelta]", device: torch.device) -> tuple[Tensor, Tensor]:
        """Concatenate the values of several tensors; the `values` of each become a view of the result.

        Parameters
        ----------
        deltas : sequence of ElementwiseDelta
            The tensors.
        device : torch.device
            Their device.

        Returns
        -------
        values : float32 [count]
            All values.
        units : float32 [count]
            The root mean square of the values of each value's tensor.
        """
        empty = torch.empty(0, device=device)
        units = [delta.values.square().mean().sqrt().expand(len(delta.values)) for delta in deltas]
        whole = torch.cat([empty, *(delta.values for delta in deltas)])
        begin = 0
        # Views, so that a step on the whole changes every tensor.
        for delta in deltas:
            delta._begin, end = begin, begin + len(delta.values)
            delta.values = whole[begin:end]
            begin = end
        return whole, torch.cat([empty, *units])

    def weight(self) -> Tensor:
        """Return the tensor, base plus delta: float32 [height, columns]."""
        weight = self._base.clone()
        weight[self._packed.where()] += self.values.view(self._packed.coded_shape)
        return weight

    def shift(self, by: Tensor) -> None:
        """Add to the tensor's coded elements; the others do not change.

        Parameters
        ----------
        by : float32 [height * columns]
            One summand for each element of the tensor.
        """
        self.values += by.view(self._base.shape)[self._packed.where()].flatten()

    def add_gradient(self, total: Tensor, weight_gradient: Tensor) -> None:
        """Add the gradient of these values to that of all concatenated ones.

        Parameters
        ----------
        total : float32 [count]
            Gradient of all values; changed in place.
        weight_gradient : float32 [height, columns]
            Gradient of the tensor.
        """
        total[self._begin : self._begin + len(self.values)] += weight_gradient[self._packed.where()].flatten()

    def quantize(self, stored: Streams, dtype: str) -> Streams:
        """Quantize the values at the block's width, and return its streams. `values` become the decoded ones.

        Parameters
        ----------
        stored : Streams
            The block's streams so far; their bitmaps are used again.
        dtype : {"F32", "BF16"}
            Dtype of the pack's numbers.
        """
        values = self.values.view(self._packed.coded_shape)
        codes, scales = quantize_elements(values.cpu(), self._block.bits, self._block.per_row, rounded)
        # Rounded as stored, so that the decoded values below are those of the pack.
        levels = round_numbers(codes.levels, dtype).reshape(codes.levels.shape)
        codes, scales = codes.with_levels(levels), round_numbers(scales, dtype)
        numbers, bands = Values.join(codes, scales)
        streams = Streams(stored.bitmaps, numbers, bands)
        # The fit goes on with the decoded values.
        decoded = dequantize_values(codes, scales, self._packed.coded_shape)
        self.values.copy_(torch.from_numpy(np.ascontiguousarray(decoded, np.float32)).flatten())
        return streams
