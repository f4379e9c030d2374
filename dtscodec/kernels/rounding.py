"""Sums of base and delta -> weights in the dtype of the result, rounded once, as the block says (spec section 6.6)."""

from functools import lru_cache

import torch
from torch import Tensor

from dtscodec.kernels.packed import PackedFactors
from dtscodec.quantize.dither import PERIOD, thresholds

UPPER_HALF = -0x10000
"""Mask of the bits of a float32 that bfloat16 has."""


def is_dithered(factors: PackedFactors, out: Tensor) -> bool:
    """Return whether weights are rounded by thresholds: only bfloat16 is."""
    return factors.block.is_dithered and out.dtype == torch.bfloat16


def add_base(delta: Tensor, base: Tensor, factors: PackedFactors, out: Tensor, begin: int = 0) -> Tensor:
    """Add the base to a delta; where the block is dithered, also round the sums to bfloat16.

    Parameters
    ----------
    delta : float32 or float64 [m, coded columns]
        The delta of consecutive coded rows; overwritten.
    base : float [m, coded columns]
        The base there.
    factors : PackedFactors
        The factors of the block.
    out : Tensor
        The result, for its dtype.
    begin : int
        Place of the first of these rows among the coded rows.

    Returns
    -------
    Tensor [m, coded columns]
        `delta`, which now holds the sums.
    """
    delta.add_(base)
    if is_dithered(factors, out):
        if base.dtype != torch.bfloat16:
            # Bits of a NaN that bfloat16 cannot hold may overflow; those of the usual one do not.
            delta.masked_fill_(delta.isnan(), torch.nan)
        bits = delta.view(torch.int32)
        _add_thresholds(bits, factors, begin)
        bits &= UPPER_HALF
    return delta


def _add_thresholds(bits: Tensor, factors: PackedFactors, begin: int) -> None:
    table = _thresholds_on(factors.columns, bits.device)
    table = table if factors.cols is None else table[:, factors.cols.long()]
    if factors.rows is not None:
        bits += table[factors.rows[begin : begin + len(bits)].long() % PERIOD]
        return
    # Whole periods at once, from the row of the table that belongs to the first row.
    first = begin % PERIOD
    table = torch.cat([table[first:], table[:first]]) if first else table
    whole = len(bits) // PERIOD * PERIOD
    bits[:whole].view(-1, *table.shape).add_(table)
    bits[whole:].add_(table[: len(bits) - whole])


@lru_cache(maxsize=8)
def _thresholds_on(columns: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # A tensor made in inference mode could not be used outside of it.
        return torch.tensor(thresholds(columns), device=device)
