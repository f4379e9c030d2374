"""Weights of bitsandbytes: nf4 and fp4 with plain or nested statistics, and int8 with a scale for each row."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.quantized.quantization_settings import QuantizationSettings
from dtscodec.checkpoints.quantized.quantized_weight import CHUNK, ReadTensor, chunks
from dtscodec.checkpoints.torch_dtypes import torch_dtype
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import DType
from dtscodec.messages import one_line

if TYPE_CHECKING:
    from torch import Tensor

_STATE = ".quant_state.bitsandbytes__"
_DTYPES: dict[str, DType] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_INT8 = 7.874015718698502e-3
"""1/127 as bitsandbytes writes it."""


@dataclass(frozen=True, slots=True)
class FourBitWeight:
    """A weight of nf4 or fp4 codes.

    Parameters
    ----------
    name : str
        Name of the codes, and of the weight.
    shape : tuple of int
        Its shape.
    scheme : str
        Name of the scheme.
    state : str
        Name of the tensor that holds the quantization state as JSON.
    dtype : {"BF16", "F16", "F32"}
        Dtype that the weight had.
    block : int
        Elements that share a maximum.
    nested : (int, float) or None
        For maxima that are quantized themselves: number of maxima that share a nested maximum, and their offset.
    """

    name: str
    shape: tuple[int, ...]
    scheme: str
    state: str
    dtype: DType
    block: int
    nested: tuple[int, float] | None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that the weight is made of."""
        statistics = ["absmax", "quant_map", *(["nested_absmax", "nested_quant_map"] if self.nested else [])]
        return (self.name, self.state, *(f"{self.name}.{part}" for part in statistics))

    @property
    def settings(self) -> tuple[int | str, ...]:
        """Empty: the state is one of the parts."""
        return ()

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """See `QuantizedWeight`."""
        import torch

        # The container may be of any dtype: its bytes are pairs of codes, the first in the high bits.
        codes = read(self.name).contiguous().view(torch.uint8).view(-1)
        levels, maxima = read(f"{self.name}.quant_map").float(), self._maxima(read)
        flat = out.view(-1)
        for part in chunks(math.ceil(len(flat) / self.block), self.block):
            begin, end = part.start * self.block, min(part.stop * self.block, len(flat))
            pairs = codes[begin // 2 : (end + 1) // 2]
            values = levels[torch.stack([pairs >> 4, pairs & 15], dim=1).view(-1).long()][: end - begin]
            scales = maxima[part].repeat_interleave(self.block)[: end - begin]
            flat[begin:end] = (values * scales).to(torch_dtype(self.dtype))

    def _maxima(self, read: ReadTensor) -> "Tensor":
        maxima = read(f"{self.name}.absmax")
        if self.nested is None:
            return maxima.float()
        block, offset = self.nested
        nested = read(f"{self.name}.nested_absmax").float().repeat_interleave(block)[: len(maxima)]
        return read(f"{self.name}.nested_quant_map").float()[maxima.long()] * nested + offset


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A weight of int8 codes with the largest magnitude of each row.

    Parameters
    ----------
    name : str
        Name of the codes, and of the weight.
    shape : (int, int)
        Its shape.
    scale : str
        Name of the largest magnitudes.
    """

    name: str
    shape: tuple[int, ...]
    scale: str
    scheme = "bitsandbytes int8"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that the weight is made of."""
        return self.name, self.scale

    @property
    def settings(self) -> tuple[int | str, ...]:
        """Empty."""
        return ()

    def dequantize(self, read: ReadTensor, out: "Tensor") -> None:
        """See `QuantizedWeight`."""
        codes, maxima = read(self.name), read(self.scale).float().view(-1, 1)
        for part in chunks(*self.shape):
            out[part] = codes[part].float() * maxima[part] * _INT8


def find_four_bit(specs: Specs, settings: QuantizationSettings, read: ReadTensor) -> Iterator[FourBitWeight]:
    """Yield the nf4 and fp4 weights; see `FindWeights`."""
    for state, spec in specs.items():
        name, found, kind = state.rpartition(_STATE)
        if not found or kind not in ("nf4", "fp4") or spec.dtype != "U8" or name not in specs:
            continue
        try:
            fields: dict[str, Any] = json.loads(read(state).numpy().tobytes())
            nested = "nested_offset" in fields
            weight = FourBitWeight(
                name,
                tuple(map(int, fields["shape"])),
                f"bitsandbytes {kind}",
                state,
                _DTYPES[fields["dtype"]],
                int(fields["blocksize"]),
                (int(fields["nested_blocksize"]), float(fields["nested_offset"])) if nested else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            detail = f"expected a quantization state of bitsandbytes, got '{one_line(error)}'"
            raise CheckpointError(f"{state}: {detail}") from error
        _check_four_bit(weight, specs)
        yield weight


def _check_four_bit(weight: FourBitWeight, specs: Specs) -> None:
    """Raise CheckpointError unless the sizes of all parts fit, before anything is allocated."""
    blocks = math.ceil(math.prod(weight.shape) / weight.block) if weight.block > 0 else 0
    sizes = {weight.name: math.ceil(math.prod(weight.shape) / 2)}
    sizes[f"{weight.name}.absmax"] = blocks * (1 if weight.nested else 4)
    sizes[f"{weight.name}.quant_map"] = 16 * 4
    if weight.nested:
        sizes[f"{weight.name}.nested_absmax"] = 4 * math.ceil(blocks / max(1, weight.nested[0]))
        sizes[f"{weight.name}.nested_quant_map"] = 256 * 4
    for part, size in sizes.items():
        got = specs[part].nbytes if part in specs else "none"
        if got != size or weight.block > CHUNK:
            raise CheckpointError(f"{part}: expected {size:,} bytes of a {weight.scheme} weight, got {got}")


def find_int8(specs: Specs, settings: QuantizationSettings, read: ReadTensor) -> Iterator[Int8Weight]:
    """Yield the int8 weights; see `FindWeights`."""
    for name, spec in specs.items():
        scale = name.removesuffix("weight") + "SCB"
        is_int8 = spec.dtype == "I8" and len(spec.shape) == 2 and name.endswith("weight")
        if is_int8 and scale in specs and specs[scale].elements == spec.shape[0]:
            yield Int8Weight(name, spec.shape, scale)
