"""The backend for GPUs: Triton kernels that read packed codes."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from dtscodec.kernels.backend import Share
from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.reference import Reference, as_summand, coded_positions
from dtscodec.kernels.rounding import is_dithered
from dtscodec.kernels.triton.apply_kernels import expand, pick, project
from dtscodec.kernels.triton.batch import LARGE_TILE, SMALL_TILE, Batch, batch_of
from dtscodec.kernels.triton.codes import U, V
from dtscodec.kernels.triton.reconstruct_kernel import reconstruct_tile
from dtscodec.kernels.triton.table import on_device, table_of

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
LARGEST = 2**21
"""Rows and columns of the largest block: a grid has at most 2^16 - 1 tiles beside one another."""

PRECISION = "ieee" if triton.knobs.runtime.interpret else "bf16x6"
"""How tensor cores multiply float32 within level B; the interpreter multiplies float32 directly.

A value is split, exactly, into three of bfloat16, each the rounded remainder of those before it. Their products are
exact in float32. Of the nine, three that are below 2^-24 of the result are omitted. The other six take as long as
`tf32x3`, which omits up to 2^-22: too much for few components. `tests/kernels/test_triton_precision.py` compares this
with the bound. Two limits come from bfloat16: parts below 2^-133 vanish, so that levels below 2^-110 lose bits, and a
u s within 0.4 % of the largest float32 overflows.
"""

COMMON = {"BLOCK_K": 16, "num_stages": 1}
"""Few components at a time, since small packs have few. More stages would prefetch levels, not codes."""
RECONSTRUCT = {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, **COMMON}
PROJECT = {
    SMALL_TILE: {"BLOCK_N": 16, "num_warps": 4, "maxnreg": 128, **COMMON},
    LARGE_TILE: {"BLOCK_N": 16, "num_warps": 4, "maxnreg": 255, **COMMON},
}
EXPAND = {
    SMALL_TILE: {"BLOCK_N": 64, "num_warps": 4, "maxnreg": 128, **COMMON},
    LARGE_TILE: {"BLOCK_N": 64, "num_warps": 8, "maxnreg": 255, **COMMON},
}
PICK = {"num_warps": 4, "maxnreg": 128, **COMMON}
"""Tiles and limits with which no kernel spills; ptxas, left alone, now and then takes fewer registers and spills.

Blackwell's tensor memory has room for the six products of a tile of 64 columns, not of 128: such a kernel would trap.
"""

PROGRAMS = 512
"""Fewest programs of `project`, divided by parts of the columns, that fill a GPU."""
PART = 128
"""The fewest columns of a part."""


class Triton(Reference):
    """See `dtscodec.kernels.backend.Backend`.

    It leaves to the reference: float64 (except as a base that is converted), blocks of more than 2^21 rows or columns,
    transposed factors, and tensors that require gradients.
    """

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor, only_coded: bool = False) -> None:
        """Write W = base + D."""
        base = as_summand(base, out)
        if not _is_supported([base, out], [factors]):
            super().reconstruct(base, factors, out, only_coded)
            return
        # The kernel writes coded elements only; the others are the base's.
        if not factors.is_whole and not only_coded and out.data_ptr() != base.data_ptr():
            out.copy_(base)
        table = table_of([factors])
        m, n = factors.coded_shape
        grid = (triton.cdiv(m, RECONSTRUCT["BLOCK_M"]), triton.cdiv(n, RECONSTRUCT["BLOCK_N"]))
        with _current(out.device):
            reconstruct_tile[grid](
                base, out, on_device(table.fields, out.device), m, n, *base.stride(), *out.stride(),
                WIDTHS=table.widths, ROW_INDEX=_index_type(factors.rows), COLUMN_INDEX=_index_type(factors.cols),
                PRECISION=PRECISION, DITHERED=is_dithered(factors, out),
                maxnreg=registers(table.widths, whole=factors.is_whole), **RECONSTRUCT,
            )  # fmt: skip

    def apply(self, x: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add x D^T to y."""
        plain = not any(share.transposed for share in shares) and not _is_recorded(x, y)
        if not plain or not _is_supported([x, y], [share.factors for share in shares]):
            super().apply(x, shares, y)
            return
        batch = batch_of(shares, len(y), y.device)
        if batch is None:
            return
        # Divide the columns into parts, so that a small batch, too, has programs for the whole GPU.
        blocks = triton.cdiv(batch.table.rank, COMMON["BLOCK_K"])
        n = max(share.factors.coded_shape[1] for share in shares)
        # Enough parts to fill the GPU, each a multiple of PART columns.
        parts = min(triton.cdiv(n, PART), triton.cdiv(PROGRAMS, batch.tile_count * blocks))
        part = triton.cdiv(n, parts * PART) * PART
        # Partial sums over the parts: float32 [parts, rows, rank].
        hidden = torch.empty((triton.cdiv(n, part), len(batch.rows), batch.table.rank), device=y.device)
        with _current(y.device):
            project[batch.tile_count, len(hidden), blocks](
                x, batch.rows, batch.fields, batch.tiles, hidden, *x.stride(), *hidden.stride()[:2], part,
                WIDTHS=batch.table.widths, COLUMN_INDEX=_index_type(*(share.factors.cols for share in shares)),
                PRECISION=PRECISION, BLOCK_B=batch.block, **PROJECT[batch.block],
            )  # fmt: skip
            _expand(hidden.sum(0), batch, [share.factors for share in shares], U.value, y)

    def gather(self, ids: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add rows of D to y."""
        if _is_recorded(y) or not _is_supported([y], [share.factors for share in shares]):
            super().gather(ids, shares, y)
            return
        batch = batch_of(shares, len(y), y.device)
        if batch is None:
            return
        # Positions among the coded rows: int64 [rows], -1 for rows that are not coded.
        at = torch.cat([_positions(ids[share.rows], share.factors) for share in shares])
        hidden = torch.empty((len(batch.rows), batch.table.rank), device=y.device)
        with _current(y.device):
            pick[batch.tile_count,](
                at, batch.fields, batch.tiles, hidden, hidden.stride(0),
                WIDTHS=batch.table.widths, BLOCK_B=batch.block, **PICK,
            )  # fmt: skip
            _expand(hidden, batch, [share.factors for share in shares], V.value, y)


def _expand(hidden: Tensor, batch: Batch, shares: Sequence[PackedFactors], side: int, y: Tensor) -> None:
    """Add hidden times the vectors of u or of v to y: the second step of `apply` and `gather`."""
    count = max(factors.coded_shape[side] for factors in shares)
    index = _index_type(*((factors.rows, factors.cols)[side] for factors in shares))
    expand[batch.tile_count, triton.cdiv(count, EXPAND[batch.block]["BLOCK_N"])](
        hidden, batch.rows, batch.fields, batch.tiles, y, *y.stride(), hidden.stride(0),
        WIDTHS=batch.table.widths, SIDE=side, INDEX=index,
        PRECISION=PRECISION, BLOCK_B=batch.block, **EXPAND[batch.block],
    )  # fmt: skip


def _is_supported(tensors: Iterable[Tensor], shares: Iterable[PackedFactors]) -> bool:
    """Return whether the kernels support these tensors and factors."""
    return all(tensor.dtype in FLOATS for tensor in tensors) and all(
        max(factors.block.height, factors.columns) <= LARGEST for factors in shares
    )


def _is_recorded(*tensors: Tensor) -> bool:
    """Return whether gradients may be required, which the kernels do not support."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def registers(widths: Sequence[int], *, whole: bool) -> int:
    """Return the limit of registers for `reconstruct_tile`: two blocks of threads at once if that causes no spills."""
    return 128 if whole and tuple(widths) == (2,) else 255


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Return a context with a device as the current one, which Triton launches on; the interpreter needs none."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _index_type(*subsets: Tensor | None) -> "tl.dtype | None":
    """Return the type of the index of rows or columns: equal for all shares, as it follows from the block's shape."""
    types = {subset.dtype for subset in subsets if subset is not None}
    return {torch.int16: tl.int16, torch.int32: tl.int32}[types.pop()] if types else None


def _positions(ids: Tensor, factors: PackedFactors) -> Tensor:
    """Return the positions of rows among the coded ones; -1 for rows that are not coded."""
    at, coded = coded_positions(ids, factors)
    return torch.where(coded, at, -1)
