"""Batches for Triton kernels: rows in the order of their shares, divided into tiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.kernels.backend import Rows, Share
from dtscodec.kernels.triton.table import Table, on_device, table_of

SMALL_TILE, LARGE_TILE = 16, 64
"""Rows of a tile: the fewest that a tensor core takes, or enough to amortize the unpacking of codes."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The shares of a launch.

    Parameters
    ----------
    table : Table
        The table of their factors.
    fields : int64 [count]
        The table on the device.
    tiles : int64 [3 tile_count]
        For each tile, the position of its share in the table, its first row, counted in `rows`, and its number of rows.
    tile_count : int
        Number of tiles.
    block : int
        Largest number of rows of a tile.
    rows : int64 [count]
        The rows of all shares, one share after another.
    """

    table: Table
    fields: Tensor
    tiles: Tensor
    tile_count: int
    block: int
    rows: Tensor


def batch_of(shares: Sequence[Share], count: int, device: torch.device) -> Batch | None:
    """Group the rows of a batch by share, and divide them into tiles.

    Parameters
    ----------
    shares : sequence of Share
        The tasks of the batch.
    count : int
        Rows of the batch.
    device : torch.device
        Device of the launch.

    Returns
    -------
    Batch or None
        None if no share has rows.
    """
    rows = [_index(share.rows, count, device) for share in shares]
    largest = max(map(len, rows), default=0)
    if not largest:
        return None
    # Small tiles for small batches; then divide the rows of each share.
    block = SMALL_TILE if largest <= 2 * SMALL_TILE else LARGE_TILE
    table = table_of([share.factors for share in shares])
    tiles: list[int] = []
    first = 0
    for place, some in zip(table.shares, rows, strict=True):
        for begin in range(0, len(some), block):
            tiles += [place, first + begin, min(block, len(some) - begin)]
        first += len(some)
    fields = on_device(table.fields + tiles, device)  # One copy for both.
    return Batch(table, fields, fields[len(table.fields) :], len(tiles) // 3, block, torch.cat(rows))


def _index(rows: Rows, count: int, device: torch.device) -> Tensor:
    """Return rows as indices: int64 [rows]."""
    return torch.arange(*rows.indices(count), device=device) if isinstance(rows, slice) else rows
