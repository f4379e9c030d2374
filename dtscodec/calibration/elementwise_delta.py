"""A delta that is coded element by element, while it is fitted: free numbers, which are quantized again at the end."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dtscodec.checkpoints.torch_dtypes import torch_dtype
from dtscodec.decoding.packed_tensors import LoadedTensor
from dtscodec.encoding.presets.best import code_values
from dtscodec.format.blocks import Values
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.parts import Vectors, join_values
from dtscodec.format.primitives.bits import pack_codes
from dtscodec.format.streams import Streams, round_numbers
from dtscodec.kernels.dequantize import dequantize
from dtscodec.kernels.packed import PackedValues
from dtscodec.kernels.unpack import unpack_values


class ElementwiseDelta:
    """The elements of a tensor that is one `values` block on its base: biases, norms.

    Parameters
    ----------
    change : LoadedTensor
        See `can_hold`.
    bases : mapping
        Specs and bytes, uint8 [nbytes], of base tensors.

    Attributes
    ----------
    values : float32 [coded rows * columns]
        The delta of the coded elements; a part of a longer tensor after `joined`.
    """

    def __init__(self, change: LoadedTensor, bases: Mapping[str, tuple[TensorSpec, Tensor]]) -> None:
        (loaded,) = change.blocks
        assert isinstance(loaded.block, Values)
        assert isinstance(loaded.payload, PackedValues)
        assert loaded.block.base is not None
        self._block, self._packed, self._columns = loaded.block, loaded.payload, change.entry.columns
        spec, data = bases[loaded.block.base.name]
        first = loaded.block.base.first
        base = data.view(torch_dtype(spec.dtype)).view(-1, self._columns)[first : first + loaded.block.height]
        self._base = base.float()
        self.values = unpack_values(loaded.payload).flatten()
        self._begin = 0

    @staticmethod
    def can_hold(change: LoadedTensor) -> bool:
        """Whether a tensor is such a one."""
        block = change.blocks[0].block
        return len(change.blocks) == 1 and isinstance(block, Values) and block.base is not None

    @staticmethod
    def joined(parts: "Sequence[ElementwiseDelta]", device: torch.device) -> tuple[Tensor, Tensor]:
        """All values one after the other, and beside each the root mean square of its tensor's: float32 [count].

        Each part's values become a view of the first.
        """
        empty = torch.empty(0, device=device)
        units = [part.values.square().mean().sqrt().expand(len(part.values)) for part in parts]
        whole = torch.cat([empty, *(part.values for part in parts)])
        begin = 0
        for part in parts:
            part._begin, end = begin, begin + len(part.values)
            part.values = whole[begin:end]
            begin = end
        return whole, torch.cat([empty, *units])

    def weight(self) -> Tensor:
        """The tensor that they make of the base: float32 [height, columns]."""
        weight = self._base.clone()
        weight[self._packed.places()] += self.values.view(self._packed.coded_shape)
        return weight

    def shift(self, by: Tensor) -> None:
        """Add something to the tensor: float32 of as many elements; what is not coded stays.

        Parameters
        ----------
        by : float32 [height * columns]
        """
        self.values += by.view(self._base.shape)[self._packed.places()].flatten()

    def add_gradient(self, total: Tensor, weight: Tensor) -> None:
        """Add what the values get to the gradient of all parts' values.

        Parameters
        ----------
        total : float32 [count]
        weight : float32 [height, columns]
            Gradient of the tensor.
        """
        total[self._begin : self._begin + len(self.values)] += weight[self._packed.places()].flatten()

    def quantize(self, kept: Streams, dtype: str) -> Streams:
        """The block's streams, at its own width, with the bitmaps of those that are given; `values` become theirs.

        Parameters
        ----------
        kept : Streams
        dtype : {"F32", "BF16"}
            In which the pack has numbers.
        """
        values = self.values.view(self._packed.coded_shape)
        codes, levels, scales = code_values(values.cpu(), self._block, None)
        packed = pack_codes(codes.reshape(1, -1), self._block.bits)
        numbers, bands = join_values(Vectors(packed, levels, codes.size, self._block.bits), scales)
        streams = Streams(kept.bitmaps, round_numbers(numbers.astype(np.float32), dtype), bands)
        decoded = dequantize(self._block, self._columns, streams).left
        self.values.copy_(torch.from_numpy(np.ascontiguousarray(decoded, np.float32)).flatten())
        return streams
