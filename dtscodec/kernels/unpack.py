"""Packed codes -> values, as torch tensors, on the device of their store (spec sections 5.3, 6.4 and 6.5)."""

import torch
from torch import Tensor

from dtscodec.format.blocks import LEVELS
from dtscodec.format.parts import Vectors
from dtscodec.kernels.dequantize import FIXED_LEVELS, code_values
from dtscodec.kernels.packed import PackedBand, PackedFactors, PackedValues, Store


def unpack_factors(factors: PackedFactors, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The factors of a block as dense matrices; their product `left.T @ right` is the delta.

    Parameters
    ----------
    factors : PackedFactors
        Of m coded rows, n coded columns and rank r.
    dtype : torch.float32 or torch.float64

    Returns
    -------
    left : dtype [r, m]
        u s, transposed.
    right : dtype [r, n]
        v, transposed.
    """
    m, n = factors.coded_shape
    lefts, rights = [], []
    for band in factors.placed():
        u = _values(*_packed(factors, band, band.u_at, m, band.u_levels), m, band.bits)
        v = _values(*_packed(factors, band, band.v_at, n, band.v_levels), n, band.bits)
        lefts.append(_scaled(u.to(dtype), factors, band))
        rights.append(v.to(dtype))
    return (lefts[0], rights[0]) if len(lefts) == 1 else (torch.cat(lefts), torch.cat(rights))


def unpack_values(values: PackedValues) -> Tensor:
    """The delta of a `values` block: float32 [coded rows, coded columns], the same bits on every device (level A)."""
    rows, cols = values.coded_shape
    used = -(-rows * cols * values.bits // 8)
    tables = int(values.bits == 2)
    packed, levels = _stored(values.store, values.codes_at, (1, used), used, values.numbers_at, tables)
    found = _values(packed, levels, rows * cols, values.bits).view(rows, cols)
    if values.bits not in (4, 8):
        return found
    count = rows if values.per_row else 1
    return found * values.store.numbers[values.numbers_at : values.numbers_at + count, None]


def unpack_left_rows(factors: PackedFactors, rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `unpack_factors`, of some of the coded rows: int64 [k] -> left float32 [r, k], right float32 [r, n]."""
    n = factors.coded_shape[1]
    lefts, rights = [], []
    for band in factors.placed():
        packed, levels = _packed(factors, band, band.u_at, factors.coded_shape[0], band.u_levels)
        lefts.append(_scaled(_values_at(packed, levels, band.bits, rows), factors, band))
        rights.append(_values(*_packed(factors, band, band.v_at, n, band.v_levels), n, band.bits))
    return torch.cat(lefts), torch.cat(rights)


def _scaled(u: Tensor, factors: PackedFactors, band: PackedBand) -> Tensor:
    if band.bits == 16:
        return u
    scales = factors.store.numbers[band.scales : band.scales + band.rank]
    return u * scales.to(u.dtype)[:, None]


def _packed(factors: PackedFactors, band: PackedBand, at: int, count: int, levels_at: int) -> tuple[Tensor, Tensor]:
    """Vectors of u or v of a band, still packed: uint8 [rank, bytes]; and their level tables [tables, 4]."""
    tables = (band.rank if factors.per_vector else 1) if band.bits == 2 else 0
    return _stored(factors.store, at, (band.rank, -(-count * band.bits // 8)), band.stride, levels_at, tables)


def _stored(
    store: Store, at: int, shape: tuple[int, int], stride: int, levels_at: int, tables: int
) -> tuple[Tensor, Tensor]:
    levels = store.numbers[levels_at : levels_at + LEVELS * tables].view(-1, LEVELS)
    return store.codes.as_strided(shape, (stride, 1), at), levels


def _values(packed: Tensor, levels: Tensor, count: int, bits: int) -> Tensor:
    """The values of packed vectors: float32 [k, count]."""
    if _by_bytes(packed.device):
        return torch.from_numpy(code_values(Vectors(packed.numpy(), levels.numpy(), count, bits)))
    return _values_at(packed, levels, bits, torch.arange(count, device=packed.device))


def _by_bytes(device: torch.device) -> bool:
    """Whether numpy can look up all codes of a byte at once."""
    return device.type == "cpu"


def _values_at(packed: Tensor, levels: Tensor, bits: int, elements: Tensor) -> Tensor:
    """The values of some elements of packed vectors: float32 [k, elements]."""
    if bits >= 8:
        return packed.view(torch.int8 if bits == 8 else torch.float16)[:, elements].float()
    per_byte = 8 // bits
    shifts = (elements % per_byte * bits).to(torch.uint8)
    codes = (packed[:, elements // per_byte] >> shifts & (1 << bits) - 1).long()
    if bits == 4:
        levels = torch.from_numpy(FIXED_LEVELS).to(packed.device)[None]
    return levels[0][codes] if len(levels) == 1 else levels.gather(1, codes)
