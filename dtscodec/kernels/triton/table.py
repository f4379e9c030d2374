"""The table that describes the packed factors of all shares of a launch to Triton kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from dtscodec.format.blocks import BandPlace
from dtscodec.kernels.packed import PackedFactors
from dtscodec.quantize.widths import Bits, width_of


@dataclass(frozen=True, slots=True)
class Table:
    """The positions of the bands of all shares of a launch.

    Parameters
    ----------
    fields : list of int
        The records; `dtscodec.kernels.triton.codes` describes their fields.
    shares : tuple of int
        Positions of the records of the shares in the table.
    widths : tuple of int
        Widths that occur, ascending.
    rank : int
        Components of the largest share.
    """

    fields: list[int]
    shares: tuple[int, ...]
    widths: tuple[int, ...]
    rank: int


def table_of(shares: Sequence[PackedFactors]) -> Table:
    """Return the table of the factors of each share, all on one device."""
    # Records of shares come first, then those of bands: share by share, width by width.
    widths = tuple(sorted({band.bits for factors in shares for band in factors.block.bands}))
    # Fields of a share: two counts, two addresses, the first band of each width, the end of the last one.
    record = 4 + len(widths) + 1
    first_band = record * len(shares)
    heads: list[int] = []
    bands: list[int] = []
    for factors in shares:
        heads += [*factors.coded_shape, _address(factors.rows), _address(factors.cols)]
        placed, component = factors.band_places(), 0
        for bits in widths:
            heads.append(first_band + len(bands))
            for band in (band for band in placed if band.bits == bits):
                bands += _band(factors, band, component)
                component += band.rank
        heads.append(first_band + len(bands))
    places = tuple(range(0, first_band, record))
    return Table(heads + bands, places, widths, max(factors.block.rank for factors in shares))


def _band(factors: PackedFactors, band: BandPlace, component: int) -> list[int]:
    """Return the record of a band: addresses in bytes, steps in elements."""
    codes, numbers = factors.store.codes.data_ptr(), factors.store.numbers
    u_levels, v_levels = (numbers.data_ptr() + numbers.element_size() * at for at in (band.u_levels, band.v_levels))
    # Levels that the format prescribes are not in the store, but in memory of their own.
    if width_of(band.bits).fixed_levels is not None:
        u_levels = v_levels = _fixed_levels(band.bits, numbers.device).data_ptr()
    # A step of 0: one table serves all components of a band.
    table_step = width_of(band.bits).stored_levels if factors.block.per_vector else 0
    scales = numbers.data_ptr() + numbers.element_size() * band.scales
    places = [codes + band.u_at, codes + band.v_at, u_levels, v_levels]
    return [band.rank, component, band.stride // 4, table_step, scales, *places]


@cache
def _fixed_levels(bits: Bits, device: torch.device) -> Tensor:
    """Return the levels that the format prescribes for a width, cached on a device."""
    levels = width_of(bits).fixed_levels
    assert levels is not None
    return torch.from_numpy(levels).to(device)


def _address(index: Tensor | None) -> int:
    return 0 if index is None else index.data_ptr()


def on_device(fields: list[int], device: torch.device) -> Tensor:
    """Return a table's integers on a device: int64 [count]."""
    return torch.tensor(fields, dtype=torch.int64).to(device, non_blocking=True)
