"""Packed codes -> delta, as torch tensors on the device of their store (spec sections 5.3, 6.4 and 6.5).

If a store's numbers require gradients, so do the results, which are functions of levels and scales.
"""

import numpy as np
import torch
from torch import Tensor

from dtscodec.errors import assert_never
from dtscodec.format.blocks.band import BandPlace, scaled_factors
from dtscodec.format.blocks.values import dequantize_values
from dtscodec.kernels.packed import Packed, PackedFactors, PackedValues, Store
from dtscodec.quantize.packing import vector_bytes
from dtscodec.quantize.widths import Bits, width_of


def unpack_delta(packed: Packed, dtype: torch.dtype) -> Tensor:
    """Return the delta of a block's coded rows and columns.

    Parameters
    ----------
    packed : PackedFactors or PackedValues
        Of m coded rows and n coded columns.
    dtype : torch.float32 or torch.float64
        Dtype of the result.

    Returns
    -------
    dtype [m, n]
    """
    match packed:
        case PackedFactors():
            left, right = unpack_factors(packed, dtype)
            return left.T @ right
        case PackedValues():
            return unpack_values(packed).to(dtype)
        case _:
            assert_never(packed)


def unpack_factors(factors: PackedFactors, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return the factors of a block as dense matrices; their product `left.T @ right` is the delta.

    Parameters
    ----------
    factors : PackedFactors
        Of m coded rows, n coded columns and rank r.
    dtype : torch.float32 or torch.float64
        Dtype of the arithmetic and of the results.

    Returns
    -------
    left : dtype [r, m]
        u s, transposed.
    right : dtype [r, n]
        v, transposed.
    """
    if _by_bytes(factors.store):
        arrays = scaled_factors(factors.view(), np.float64 if dtype == torch.float64 else np.float32)
        return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])
    return _unpack(factors, torch.arange(factors.coded_shape[0], device=factors.store.device), dtype)


def unpack_left_rows(factors: PackedFactors, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the factors of a selection of coded rows, like `unpack_factors`.

    Parameters
    ----------
    factors : PackedFactors
        Of n coded columns and rank r.
    rows : int64 [k]
        Positions among the coded rows.
    dtype : torch.float32 or torch.float64
        Dtype of the arithmetic and of the results.

    Returns
    -------
    left : dtype [r, k]
        u s of these rows, transposed.
    right : dtype [r, n]
        v, transposed.
    """
    return _unpack(factors, rows, dtype)


def _unpack(factors: PackedFactors, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unpack by shifts, which every device supports."""
    columns = torch.arange(factors.coded_shape[1], device=rows.device)
    lefts, rights = [], []
    for band in factors.band_places():
        # (u s)^T of the rows, then v^T of all columns.
        u = packed_vectors(factors, band, band.u_at, band.u_levels)
        v = packed_vectors(factors, band, band.v_at, band.v_levels)
        left = _values_at(*u, band.bits, rows).to(dtype)
        # Components of 16 bits have no scales.
        if width_of(band.bits).has_scales:
            left = left * factors.store.numbers[band.scales : band.scales + band.rank].to(dtype)[:, None]
        lefts.append(left)
        rights.append(_values_at(*v, band.bits, columns).to(dtype))
    return torch.cat(lefts), torch.cat(rights)


def packed_vectors(factors: PackedFactors, band: BandPlace, at: int, levels_at: int) -> tuple[Tensor, Tensor]:
    """Return the packed vectors of one factor of a band, and its level tables, as views of the store.

    Parameters
    ----------
    factors : PackedFactors
        The block.
    band : BandPlace
        Positions of the band.
    at, levels_at : int
        Where the factor's first vector begins among the codes, and its first level among the numbers: `u_at` and
        `u_levels`, or `v_at` and `v_levels`.

    Returns
    -------
    packed : uint8 [rank, bytes]
        One vector per row.
    levels : float32 [tables, levels]
        One level table, or one per vector; none unless the width stores levels.
    """
    # A view of one factor: its vectors are `stride` bytes apart, with the other factor's between them.
    count = width_of(band.bits).stored_levels
    tables = (band.rank if factors.block.per_vector else 1) if count else 0
    levels = factors.store.numbers[levels_at : levels_at + count * tables].view(tables, count)
    # Not beyond the store, at whose end no vector follows that of v.
    end = min(band.stride, len(factors.store.codes) - at - (band.rank - 1) * band.stride)
    return factors.store.codes.as_strided((band.rank, end), (band.stride, 1), at), levels


def unpack_codes(packed: Tensor, bits: Bits, count: int) -> Tensor:
    """Return the codes of packed vectors of 2 or 4 bits.

    Parameters
    ----------
    packed : uint8 [k, bytes]
        One vector per row.
    bits : {2, 4}
        Bits per code.
    count : int
        Codes per vector.

    Returns
    -------
    uint8 [k, count]
    """
    # The first of the codes in a byte is in its lowest bits.
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return (packed[..., None] >> shifts & (1 << bits) - 1).flatten(1)[:, :count]


def unpack_values(values: PackedValues) -> Tensor:
    """Return the delta of a `values` block: float32 [coded rows, coded columns], bit-equal on all devices (level A)."""
    rows, cols = values.coded_shape
    if _by_bytes(values.store):
        return torch.from_numpy(dequantize_values(*values.view(), (rows, cols)))
    # The layout of `Values.view`, as tensors on the device.
    store, block = values.store, values.block
    scales_at = values.numbers_at + block.width.stored_levels
    levels = store.numbers[None, values.numbers_at : scales_at]
    packed = store.codes[None, values.codes_at : values.codes_at + vector_bytes(rows * cols, block.bits)]
    found = _values_at(packed, levels, block.bits, torch.arange(rows * cols, device=store.device)).view(rows, cols)
    scales = store.numbers[scales_at : values.number_span.stop, None]
    return found * scales if len(scales) else found


def _by_bytes(store: Store) -> bool:
    """Return whether numpy can look up all codes of a byte at once: on the CPU, without gradients."""
    return store.device.type == "cpu" and not store.numbers.requires_grad


def _values_at(packed: Tensor, levels: Tensor, bits: Bits, elements: Tensor) -> Tensor:
    """Return the values of elements of packed vectors.

    Parameters
    ----------
    packed : uint8 [k, bytes]
        One vector per row.
    levels : float32 [tables, levels]
        One level table, or one per vector; none unless the width stores levels.
    bits : int
        Bits per code.
    elements : int64 [count]
        Positions in the vectors.

    Returns
    -------
    float32 [k, count]
    """
    match bits:
        case 8:
            return packed.view(torch.int8)[:, elements].float()
        case 16:
            return packed.view(torch.float16)[:, elements].float()
        case 2 | 4:
            # The first of the codes in a byte is in its lowest bits.
            per_byte = 8 // bits
            shifts = (elements % per_byte * bits).to(torch.uint8)
            codes = (packed[:, elements // per_byte] >> shifts & (1 << bits) - 1).long()
            fixed = width_of(bits).fixed_levels
            # Levels that the format prescribes are not in the store.
            if fixed is not None:
                levels = torch.from_numpy(fixed).to(packed.device)[None]
            return levels[0][codes] if len(levels) == 1 else levels.gather(1, codes)
        case _:
            assert_never(bits)
