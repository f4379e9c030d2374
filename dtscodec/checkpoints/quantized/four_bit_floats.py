"""Four-bit floats (E2M1) with scales of small blocks: NVFP4 and MXFP4 of compressed-tensors, MXFP4 of gpt-oss."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.quantized.quantization_settings import QuantizationSettings
from dtscodec.checkpoints.quantized.quantized_weight import ReadTensor, chunks
from dtscodec.checkpoints.quantized.scaled_weights import powers_of_two

if TYPE_CHECKING:
    from torch import Tensor

E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The values of the codes."""


@dataclass(frozen=True, slots=True)
class PackedFloats:
    """A weight of four-bit floats with a scale for each block of a row: NVFP4, or MXFP4 as compressed-tensors has it.

    Parameters
    ----------
    name : str
        Name of the weight.
    shape : (int, int)
        Its shape.
    is_mx : bool
        Whether scales are powers of two; else they are FP8, divided by one scale of the whole weight.
    """

    name: str
    shape: tuple[int, ...]
    is_mx: bool

    @property
    def scheme(self) -> str:
        """Name of the scheme."""
        return f"compressed-tensors {'MXFP4' if self.is_mx else 'NVFP4'}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that the weight is made of."""
        endings = ["_packed", "_scale", *([] if self.is_mx else ["_global_scale"])]
        return tuple(self.name + ending for ending in endings)

    @property
    def settings(self) -> tuple[int | str, ...]:
        """Nothing."""
        return ()

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """See `QuantizedWeight`."""
        import torch

        packed, scales = read(self.name + "_packed"), read(self.name + "_scale")
        wide = powers_of_two(scales) if self.is_mx else scales.float() / read(self.name + "_global_scale")
        size = self.shape[1] // wide.shape[1]
        for part in chunks(*self.shape):
            # The library returns bfloat16.
            values = unpack_floats(packed[part]) * wide[part].repeat_interleave(size, dim=1)
            out[part] = values.to(torch.bfloat16)


@dataclass(frozen=True, slots=True)
class ExpertBlocks:
    """A stack of experts in MXFP4, as gpt-oss stores it: transposed, with 32 elements in a block.

    Parameters
    ----------
    name : str
        Name of the weight.
    shape : (int, int, int)
        Experts, inputs and outputs.
    """

    name: str
    shape: tuple[int, ...]
    scheme = "MXFP4"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that the weight is made of."""
        return self.name + "_blocks", self.name + "_scales"

    @property
    def settings(self) -> tuple[int | str, ...]:
        """Nothing."""
        return ()

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """See `QuantizedWeight`."""
        blocks, scales = map(read, self.parts)
        experts, outputs, groups, _ = blocks.shape
        for expert in range(experts):
            for part in chunks(outputs, 32 * groups):
                values = unpack_floats(blocks[expert, part]) * powers_of_two(scales[expert, part]).unsqueeze(-1)
                out[expert, :, part] = values.reshape(-1, 32 * groups).t().to(out.dtype)


def unpack_floats(pairs: "Tensor") -> "Tensor":
    """Return the values of pairs of codes, the first in the low bits: float32, twice as wide as the uint8 pairs."""
    import torch

    levels = torch.tensor(E2M1_VALUES, dtype=torch.float32, device="cpu")
    codes = torch.stack([pairs & 15, pairs >> 4], dim=-1)
    return levels[codes.long()].reshape(*pairs.shape[:-1], 2 * pairs.shape[-1])


def find_packed_floats(specs: Specs, settings: QuantizationSettings, read: ReadTensor) -> Iterator[PackedFloats]:
    """Yield the NVFP4 and MXFP4 weights of compressed-tensors; see `FindWeights`."""
    for packed, spec in specs.items():
        name = packed.removesuffix("_packed")
        scale, whole = specs.get(name + "_scale"), specs.get(name + "_global_scale")
        if (
            name == packed
            or spec.dtype != "U8"
            or len(spec.shape) != 2
            or scale is None
            or name + "_zero_point" in specs
        ):
            continue
        shape = (spec.shape[0], 2 * spec.shape[1])
        size = 32 if scale.dtype == "U8" else 16
        if scale.shape != (shape[0], shape[1] // size) or shape[1] % size:
            continue
        if scale.dtype == "U8" and whole is None:
            yield PackedFloats(name, shape, is_mx=True)
        elif scale.dtype == "F8_E4M3" and whole is not None and (whole.dtype, whole.shape) == ("F32", (1,)):
            yield PackedFloats(name, shape, is_mx=False)


def find_expert_blocks(specs: Specs, settings: QuantizationSettings, read: ReadTensor) -> Iterator[ExpertBlocks]:
    """Yield the stacks of MXFP4 experts; see `FindWeights`."""
    for blocks, spec in specs.items():
        name = blocks.removesuffix("_blocks")
        scales = specs.get(name + "_scales")
        if name == blocks or scales is None or not spec.dtype == scales.dtype == "U8":
            continue
        if len(spec.shape) == 4 and spec.shape[3] == 16 and scales.shape == spec.shape[:3]:
            yield ExpertBlocks(name, (spec.shape[0], 32 * spec.shape[2], spec.shape[1]))
