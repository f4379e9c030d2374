"""Gradients of factors and elements -> gradients of the numbers that they are decoded from (spec section 6).

A factor's element is a level, looked up by its code, times the scale of its component. The gradient of a level is a sum
over the elements that have its code; that of a scale is a sum over its component.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dtscodec.format.blocks.band import BandPlace
from dtscodec.kernels.packed import PackedFactors, PackedValues
from dtscodec.kernels.unpack import packed_vectors, unpack_codes
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import Bits, width_of


class _Sums(NamedTuple):
    """Sums over the elements of vectors.

    Parameters
    ----------
    by_level : float32 [vectors, levels]
        Sums of gradients over the elements of each code; of no columns unless the width stores levels.
    of_products : float32 [vectors]
        Sums of gradients times the values that the codes stand for.
    """

    by_level: Tensor
    of_products: Tensor


def add_factor_gradients(factors: PackedFactors, left: Tensor, right: Tensor, total: Tensor) -> None:
    """Add the gradients of a block's levels and scales to those of all numbers of its store.

    Parameters
    ----------
    factors : PackedFactors
        The block, of m coded rows, n coded columns and rank r.
    left, right : float32 [r, m] and [r, n]
        Gradients of the factors; see `dtscodec.kernels.unpack.unpack_factors`.
    total : float32 [count]
        Gradients of the store's numbers; changed in place.
    """
    begin = 0
    for band in factors.band_places():
        span = slice(begin, begin + band.rank)
        begin += band.rank
        if width_of(band.bits).has_scales:
            _add_band(factors, band, left[span], right[span], total)


def _add_band(factors: PackedFactors, band: BandPlace, left: Tensor, right: Tensor, total: Tensor) -> None:
    # left = scale * level of u, right = level of v.
    u = _sums(*packed_vectors(factors, band, band.u_at, band.u_levels), band.bits, left)
    scales = factors.store.numbers[band.scales : band.scales + band.rank].detach()
    total[band.scales : band.scales + band.rank] += u.of_products
    if width_of(band.bits).stored_levels:
        v = _sums(*packed_vectors(factors, band, band.v_at, band.v_levels), band.bits, right)
        for at, end, levels in (
            (band.u_levels, band.v_levels, u.by_level * scales[:, None]),
            (band.v_levels, band.scales, v.by_level),
        ):
            # A table of the whole band adds up over its vectors.
            total[at:end] += levels.flatten() if factors.block.per_vector else levels.sum(0)


def add_value_gradients(values: PackedValues, gradient: Tensor, total: Tensor) -> None:
    """Add the gradients of a block's levels or scales to those of all numbers of its store.

    Parameters
    ----------
    values : PackedValues
        The block, of m coded rows and n coded columns.
    gradient : float32 [m, n]
        Gradient of its coded elements.
    total : float32 [count]
        Gradients of the store's numbers; changed in place.
    """
    store, block, (rows, columns) = values.store, values.block, values.coded_shape
    if not block.width.has_scales:
        return
    # All elements are one vector; a scale belongs to all of them, or to a row.
    packed = store.codes[None, values.codes_at : values.codes_at + vector_bytes(rows * columns, block.bits)]
    scales_at = values.numbers_at + block.width.stored_levels
    levels = store.numbers[None, values.numbers_at : scales_at].detach()
    if block.width.stored_levels:
        total[values.numbers_at : scales_at] += _sums(packed, levels, block.bits, gradient.reshape(1, -1)).by_level[0]
        return
    products = gradient * _units(packed, block.bits, rows * columns).view(rows, columns)
    total[scales_at : values.number_span.stop] += products.sum(1) if block.per_row else products.sum()


def _sums(packed: Tensor, levels: Tensor, bits: Bits, gradient: Tensor) -> _Sums:
    """Sum the gradients of vectors; see `packed_vectors` for the first two arguments."""
    count = gradient.shape[1]
    if not levels.numel():
        return _Sums(levels, (gradient * _units(packed, bits, count)).sum(1))
    by_level = gradient.new_zeros(len(gradient), levels.shape[1])
    by_level.scatter_add_(1, unpack_codes(packed, bits, count).long(), gradient)
    return _Sums(by_level, (by_level * levels.detach()).sum(1))


def _units(packed: Tensor, bits: Bits, count: int) -> Tensor:
    """Return the values of codes whose levels are not stored: float32 [vectors, count]."""
    fixed = width_of(bits).fixed_levels
    if fixed is None:
        return packed.view(torch.int8)[:, :count].float()
    return torch.from_numpy(fixed).to(packed.device)[unpack_codes(packed, bits, count).long()]
