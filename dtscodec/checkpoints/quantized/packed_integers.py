"""Integers of 1 to 8 bits, packed into 32-bit words: the format ``pack-quantized`` of compressed-tensors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.quantized.quantization_settings import QuantizationSettings
from dtscodec.checkpoints.quantized.quantized_weight import ReadTensor, chunks
from dtscodec.checkpoints.quantized.scale_grid import ScaleGrid
from dtscodec.format.dtypes import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight of packed integers with scales and, in some formats, zero points.

    Parameters
    ----------
    name : str
        Name of the weight.
    shape : (int, int)
        Its shape.
    bits : int
        Bits of a code.
    grid : ScaleGrid
        The blocks that share a scale.
    zero_point : {"none", "plain", "packed"}
        How zero points are stored: not at all, as the scales are, or packed along the rows.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    grid: ScaleGrid
    zero_point: str

    @property
    def scheme(self) -> str:
        """Name of the scheme."""
        return f"compressed-tensors int{self.bits}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that the weight is made of."""
        endings = ["_packed", "_scale", "_shape", *(["_zero_point"] if self.zero_point != "none" else [])]
        return tuple(self.name + ending for ending in endings)

    @property
    def settings(self) -> tuple[int | str, ...]:
        """Bits of a code, and the size of the blocks."""
        return self.bits, self.grid.height, self.grid.width

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """See `QuantizedWeight`."""
        packed, scales = read(self.name + "_packed"), read(self.name + "_scale").reshape(self.grid.shape)
        rows, columns = self.shape
        zeros = self._zeros(read)
        for part in chunks(rows, columns):
            values = unpack_words(packed[part], self.bits, columns).float()
            if zeros is not None:
                values -= self.grid.spread(zeros, part, columns).float()
            # Rounded to the scale's dtype first, as the library computes in it.
            out[part] = (values * self.grid.spread(scales, part, columns).float()).to(scales.dtype)

    def _zeros(self, read: ReadTensor) -> "Tensor | None":
        if self.zero_point == "none":
            return None
        stored = read(self.name + "_zero_point")
        if self.zero_point == "plain":
            return stored.reshape(self.grid.shape)
        return unpack_words(stored.t().contiguous(), self.bits, self.grid.shape[0]).t()


def unpack_words(words: "Tensor", bits: int, columns: int) -> "Tensor":
    """Return the codes in rows of 32-bit words: a little-endian stream of codes in each row, less half their range.

    Parameters
    ----------
    words : int32 [rows, words]
        The words.
    bits, columns : int
        Bits of a code, and codes of a row.

    Returns
    -------
    int32 [rows, columns]
    """
    import torch

    begin = torch.arange(columns, device="cpu") * bits
    first, shift = begin // 32, begin % 32
    wide = words.to(torch.int64) & 0xFFFFFFFF
    low = wide[:, first] >> shift
    # A code may continue in the next word.
    high = wide[:, torch.clamp(first + 1, max=words.shape[1] - 1)] << (32 - shift)
    codes = torch.where(shift + bits > 32, low | high, low) & ((1 << bits) - 1)
    return (codes - (1 << (bits - 1))).to(torch.int32)


def find_packed(specs: Specs, settings: QuantizationSettings, read: ReadTensor) -> Iterator[PackedWeight]:
    """Yield the packed weights whose number of bits is certain; see `FindWeights`."""
    for packed, spec in specs.items():
        name = packed.removesuffix("_packed")
        scale, shape = specs.get(name + "_scale"), specs.get(name + "_shape")
        if name == packed or spec.dtype != "I32" or len(spec.shape) != 2 or scale is None or shape is None:
            continue
        if shape.elements != 2 or scale.dtype not in ("F16", "BF16", "F32"):
            continue
        if name + "_g_idx" in specs or settings.is_permuted:
            continue
        rows, columns = map(int, read(name + "_shape").tolist())
        widths = [b for b in settings.bits or range(1, 9) if math.ceil(columns * b / 32) == spec.shape[1]]
        if len(widths) != 1 or rows != spec.shape[0] or columns < 1 or not 1 <= widths[0] <= 8:
            continue
        grid = ScaleGrid.of(TensorSpec("I8", (rows, columns)), scale, settings.block)
        zero = _zero_point(specs.get(name + "_zero_point"), scale, widths[0])
        if grid is not None and zero is not None:
            yield PackedWeight(name, (rows, columns), widths[0], grid, zero)


def _zero_point(spec: TensorSpec | None, scale: TensorSpec, bits: int) -> str | None:
    """Return how zero points are stored; None if their shape fits no way of storing them."""
    if spec is None:
        return "none"
    groups = scale.shape[1] if len(scale.shape) > 1 else 1
    if spec.dtype == "I32" and scale.shape and spec.shape == (math.ceil(scale.shape[0] * bits / 32), groups):
        return "packed"
    return "plain" if spec.elements == scale.elements and spec.dtype == "I8" else None
