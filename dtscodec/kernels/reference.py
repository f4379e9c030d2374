"""The reference backend: plain torch on any device. Each call dequantizes the factors that it uses."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dtscodec.kernels.backend import Share
from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.rounding import add_base
from dtscodec.kernels.unpack import unpack_factors, unpack_left_rows


class Reference:
    """The backend that the others are tested against; see `dtscodec.kernels.backend.Backend`."""

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor, only_coded: bool = False) -> None:
        """Write W = base + D."""
        wide = wide_dtype(out.dtype)
        base = as_summand(base, out)
        left, right = unpack_factors(factors, wide)
        with full_precision(out.device):
            delta = left.T @ right
        if not factors.is_whole and not only_coded and out.data_ptr() != base.data_ptr():
            out.copy_(base)
        where = factors.where()
        # Added in the wide dtype, and rounded once.
        out[where] = add_base(delta, base[where], factors, out).to(out.dtype)

    def apply(self, x: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add x D^T to y."""
        with full_precision(x.device):
            for share in shares:
                # D^T = v (u s)^T; a transposed share swaps the factors.
                left, right = unpack_factors(share.factors, wide_dtype(y.dtype))
                rows, cols = share.factors.rows, share.factors.cols
                if share.transposed:
                    left, right, rows, cols = right, left, cols, rows
                # y[rows, coded rows] += (x[rows, coded columns] v) (u s)^T.
                some = x[share.rows] if cols is None else x[share.rows].index_select(1, cols.long())
                add_rows(y, share.rows, (some.to(left.dtype) @ right.T) @ left, rows)

    def gather(self, ids: Tensor, shares: Sequence[Share], y: Tensor) -> None:
        """Add rows of D to y."""
        with full_precision(y.device):
            for share in shares:
                some = ids[share.rows]
                # Rows that are not coded are unpacked, too, and multiplied by zero.
                at, coded = coded_positions(some, share.factors)
                left, right = unpack_left_rows(share.factors, at, wide_dtype(y.dtype))
                add_rows(y, share.rows, (left * coded).T @ right, share.factors.cols)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the arithmetic for results of a dtype: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_summand(base: Tensor, out: Tensor) -> Tensor:
    """Return the base as a summand: float64 is converted to other dtypes by way of float32 (spec section 6.1)."""
    return base.float() if base.dtype == torch.float64 != out.dtype else base


def add_rows(y: Tensor, rows: "slice | Tensor", delta: Tensor, columns: Tensor | None) -> None:
    """Add a delta to a part of y, in place; round once.

    Parameters
    ----------
    y : float [b, n]
        Modified in place.
    rows : slice or int64 [count]
        The rows of y.
    delta : float32 or float64 [count, columns]
        The delta.
    columns : int16 or int32 [columns], or None
        The columns of y; None for all.
    """
    if columns is not None:
        # Spread to all columns, with zeros where none is coded.
        delta = y.new_zeros(len(delta), y.shape[1], dtype=delta.dtype).index_copy_(1, columns.long(), delta)
    if isinstance(rows, slice):
        y[rows] += delta
    else:
        y.index_copy_(0, rows, delta.add_(y.index_select(0, rows)).to(y.dtype))


def coded_positions(ids: Tensor, factors: PackedFactors) -> tuple[Tensor, Tensor]:
    """Return the positions of rows among the coded rows.

    Parameters
    ----------
    ids : int64 [b]
        Rows of the block.
    factors : PackedFactors
        Factors of the block.

    Returns
    -------
    at : int64 [b]
        Positions; arbitrary for rows that are not coded.
    coded : bool [b]
        Whether each row is coded.
    """
    if factors.rows is None:
        return ids, torch.ones_like(ids, dtype=torch.bool)
    rows = factors.rows.long()
    # The first coded row that is not smaller; it equals the row exactly if that is coded.
    at = torch.searchsorted(rows, ids).clamp_(max=len(rows) - 1)
    return at, rows[at] == ids


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in full precision within this context (level B), regardless of global settings."""
    get, put = _precision(device)
    precision = get()
    if precision in ("highest", "ieee", "none") and not torch.is_autocast_enabled(device.type):
        yield
        return
    # Each of torch's two interfaces has its own name for full precision.
    put("ieee" if precision in ("tf32", "bf16") else "highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        put(precision)


def _precision(device: torch.device) -> tuple[Callable[[], str], Callable[[str], None]]:
    """Return a getter and a setter of the precision of products: torch has two mutually exclusive interfaces."""
    try:
        torch.get_float32_matmul_precision()
    except RuntimeError:
        backend = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        return lambda: str(backend.fp32_precision), lambda value: setattr(backend, "fp32_precision", value)
    return torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
