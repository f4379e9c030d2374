"""FP8 and int8 weights with scales of blocks, rows or the whole: transformers, compressed-tensors, vLLM."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.quantized.quantization_settings import QuantizationSettings
from dtscodec.checkpoints.quantized.quantized_weight import ReadTensor, chunks
from dtscodec.checkpoints.quantized.scale_grid import ScaleGrid
from dtscodec.format.dtypes import DType

if TYPE_CHECKING:
    from torch import Tensor

FP8: frozenset[DType] = frozenset({"F8_E4M3", "F8_E5M2"})
_FLOATS: frozenset[DType] = frozenset({"F16", "BF16", "F32"})
_EXPONENTS: frozenset[DType] = frozenset({"F8_E8M0", "U8"})


@dataclass(frozen=True, slots=True)
class ScaledWeight:
    """A weight of FP8 or int8 codes, each times the scale of its block, after its zero point is subtracted.

    Parameters
    ----------
    name : str
        Name of the codes, and of the weight.
    shape : tuple of int
        Its shape.
    scale : str
        Name of the scales.
    zero_point : str or None
        Name of the zero points, shaped as the scales.
    grid : ScaleGrid
        The blocks.
    scheme : str
        Name of the scheme.
    """

    name: str
    shape: tuple[int, ...]
    scale: str
    zero_point: str | None
    grid: ScaleGrid
    scheme: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that the weight is made of."""
        return (self.name, self.scale, *([self.zero_point] if self.zero_point else []))

    @property
    def settings(self) -> tuple[int | str, ...]:
        """The size of the blocks."""
        return self.grid.height, self.grid.width

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """See `QuantizedWeight`."""
        codes, scales = read(self.name), read(self.scale)
        zeros = None if self.zero_point is None else read(self.zero_point)
        # A stack of matrices, or one. With a single scale, all rows count as one matrix.
        stack, columns = math.prod(self.grid.shape[:-2]), self.shape[-1]
        rows, blocks = out.numel() // (stack * columns), (stack, *self.grid.shape[-2:])
        for matrix in range(stack):
            q, target = codes.view(stack, rows, columns)[matrix], out.view(stack, rows, columns)[matrix]
            s = as_scales(scales).reshape(blocks)[matrix]
            z = None if zeros is None else zeros.reshape(blocks)[matrix]
            for part in chunks(rows, columns):
                values = q[part].float()
                if z is not None:
                    values -= self.grid.spread(z, part, columns).float()
                # Rounded to the scale's dtype first, as the libraries compute in it.
                target[part] = (values * self.grid.spread(s, part, columns).float()).to(s.dtype)


def as_scales(scales: "Tensor") -> "Tensor":
    """Return scales as floats: exponents of the MX formats stand for powers of two, in float32."""
    import torch

    if scales.dtype == torch.float8_e8m0fnu:
        return scales.float()
    return powers_of_two(scales) if scales.dtype == torch.uint8 else scales.contiguous()


def powers_of_two(exponents: "Tensor") -> "Tensor":
    """Return 2^(e - 127) of exponents e, uint8: float32."""
    import torch

    # The bits of float32: its exponents have the same bias, but 2^-127 is subnormal.
    bits = exponents.to(torch.int32) << 23
    return bits.masked_fill_(exponents == 0, 1 << 22).view(torch.float32)


def find_scaled(specs: Specs, settings: QuantizationSettings, read: ReadTensor) -> Iterator[ScaledWeight]:
    """Yield the FP8 and int8 weights with scales; see `FindWeights`."""
    for name, spec in specs.items():
        if spec.dtype not in FP8 and spec.dtype != "I8":
            continue
        scale = next((full for suffix in ("_scale_inv", "_scale") if (full := name + suffix) in specs), None)
        allowed = _FLOATS | (_EXPONENTS if spec.dtype in FP8 else frozenset())
        if scale is None or specs[scale].dtype not in allowed:
            continue
        # Columns that are grouped by an index, or scaled a second time, are of another scheme.
        if name + "_g_idx" in specs or name + "_scale_2" in specs:
            continue
        zero = name + "_zero_point"
        grid = ScaleGrid.of(spec, specs[scale], settings.block)
        if grid is not None and (zero not in specs or specs[zero].elements == specs[scale].elements):
            scheme = "FP8" if spec.dtype in FP8 else "int8"
            yield ScaledWeight(name, spec.shape, scale, zero if zero in specs else None, grid, scheme)
