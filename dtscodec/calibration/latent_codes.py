"""Codes of low-rank blocks during a fit: latent numbers, which are rounded to the nearest code after each step.

Straight-through estimation (Bengio et al., arXiv 1308.3432): the gradient of a decoded element counts as that of its
latent number, as if rounding were the identity. A code changes once many small steps agree that it should.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.format.blocks.band import BandPlace
from dtscodec.kernels.pack import pack_tensor
from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.unpack import packed_vectors, unpack_factors
from dtscodec.quantize.lloyd_max import nearest
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.scalar import TINY
from dtscodec.quantize.widths import Bits, width_of


@dataclass(frozen=True, slots=True, eq=False)
class LatentVectors:
    """The r vectors of n codes that are one factor of a band.

    Parameters
    ----------
    bits : int
        Bits per code.
    packed : uint8 [r, bytes]
        The codes, packed; a view of the store.
    levels : float32 [tables, levels] or None
        The code books, a view of the store or those that the format prescribes; None for codes that are numbers.
    scales : float32 [r] or None
        What decoded vectors are multiplied by, a view of the store; None for right vectors, and for 16 bits.
    units : float32 [r, 1]
        Root mean square of each vector before the fit, without its scale: the unit of its latent numbers.
    span : slice
        The span of the latent numbers among all.
    components : slice
        The components among those of the block.
    is_left : bool
        Whether these are left vectors.
    """

    bits: Bits
    packed: Tensor
    levels: Tensor | None
    scales: Tensor | None
    units: Tensor
    span: slice
    components: slice
    is_left: bool

    def write(self, latent: Tensor) -> None:
        """Write the nearest codes into the store.

        Parameters
        ----------
        latent : float32 [count]
            The latent numbers of all vectors.
        """
        values = latent[self.span].view(len(self.units), -1) * self.units
        self.packed.copy_(pack_tensor(self._nearest(values), self.bits))

    def _nearest(self, values: Tensor) -> Tensor:
        """Return the nearest codes of values without scales: [r, n], in the width's dtype or int64."""
        if self.levels is None:
            width = width_of(self.bits)
            largest = width.largest_code
            return values.half() if width.is_float else values.round().clamp(-largest, largest).to(torch.int8)
        if len(self.levels) == 1:
            return _nearest(values, self.levels[0])
        return torch.stack([_nearest(row, table) for row, table in zip(values, self.levels, strict=True)])


class LatentCodes:
    """The codes of low-rank blocks of one store as latent numbers.

    Parameters
    ----------
    blocks : sequence of PackedFactors
        The blocks.

    Attributes
    ----------
    values : float32 [count]
        The latent numbers: decoded elements without their scales, in units of the root mean square of their vector.
    gradient : float32 [count]
        Their gradient, as last collected.
    """

    def __init__(self, blocks: Sequence[PackedFactors]) -> None:
        self._vectors: dict[int, list[LatentVectors]] = {}
        starts, begin = [], 0
        for block in blocks:
            vectors = self._vectors[id(block)] = []
            for one, values in _vectors(block, begin):
                vectors.append(one)
                starts.append((values / one.units).flatten())
                begin = one.span.stop
        self.values = torch.cat(starts) if starts else torch.empty(0)
        self.gradient = torch.zeros_like(self.values)

    def start_from(self, block: PackedFactors, left: Tensor, right: Tensor) -> None:
        """Set the latent numbers of a block, and write the nearest codes.

        Parameters
        ----------
        block : PackedFactors
            One of the blocks.
        left, right : float32 [r, m] and [r, n]
            What the factors would be if they were not quantized.
        """
        for one in self._vectors[id(block)]:
            values = (left if one.is_left else right)[one.components] / one.units
            if one.scales is not None:
                values /= torch.where(one.scales == 0, 1.0, one.scales)[:, None]
            self.values[one.span] = values.flatten()
            one.write(self.values)

    def add_gradient(self, block: PackedFactors, left: Tensor, right: Tensor) -> None:
        """Add the gradient of a block's factors to that of its latent numbers.

        Parameters
        ----------
        block : PackedFactors
            One of the blocks.
        left, right : float32 [r, m] and [r, n]
            Gradients of the factors that `unpack_factors` returns.
        """
        for one in self._vectors[id(block)]:
            part = (left if one.is_left else right)[one.components] * one.units
            if one.scales is not None:
                part *= one.scales[:, None]
            self.gradient[one.span] += part.flatten()

    def write(self) -> None:
        """Write the nearest codes into the store."""
        for vectors in self._vectors.values():
            for one in vectors:
                one.write(self.values)


def _vectors(block: PackedFactors, begin: int) -> Iterator[tuple[LatentVectors, Tensor]]:
    """Yield the vectors of each factor of each band, and their values without scales, float32 [r, n]."""
    factors, first = unpack_factors(block), 0
    for place in block.band_places():
        components = slice(first, first + place.rank)
        for is_left, factor in zip((True, False), factors, strict=True):
            values, scales = factor[components], None
            if is_left and width_of(place.bits).has_scales:
                scales = block.store.numbers[place.scales : place.scales + place.rank]
                values = values / torch.where(scales == 0, 1.0, scales)[:, None]
            units = values.square().mean(1, keepdim=True).sqrt().clamp(min=TINY)
            span = slice(begin, begin + values.numel())
            packed, levels = _packed(block, place, is_left, values.shape[1])
            yield LatentVectors(place.bits, packed, levels, scales, units, span, components, is_left), values
            begin = span.stop
        first = components.stop


def _packed(block: PackedFactors, place: BandPlace, is_left: bool, count: int) -> tuple[Tensor, Tensor | None]:
    """Return views of one factor of a band: uint8 [r, bytes], and its code books, float32 [tables, levels], if any."""
    at = (place.u_at, place.u_levels) if is_left else (place.v_at, place.v_levels)
    packed, levels = packed_vectors(block, place, *at)
    width = width_of(place.bits)
    if width.fixed_levels is not None:
        levels = torch.from_numpy(width.fixed_levels).to(block.store.device)[None]
    return packed[:, : vector_bytes(count, place.bits)], levels if levels.numel() else None


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Return the codes of the nearest levels, which a fit may have moved past one another."""
    ordered, codes = levels.sort()
    return codes[nearest(values, ordered)]
