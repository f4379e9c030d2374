"""The CPU backend: the arithmetic of the reference, in chunks that stay in a core's cache."""

import threading

import torch
from torch import Tensor

from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.reference import Reference, as_summand, full_precision, wide_dtype
from dtscodec.kernels.rounding import add_base, is_dithered
from dtscodec.kernels.unpack import unpack_factors

CHUNK_ELEMENTS = 2**19
"""Elements of a product per thread and chunk, 2 MiB of float32: they are added to the base before they leave the
cache."""

ROW_CHUNK_ELEMENTS = 2**17
"""The same if single rows are read and written, when three buffers share the cache."""


class Cpu(Reference):
    """See `dtscodec.kernels.backend.Backend`."""

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor, only_coded: bool = False) -> None:
        """Write W = base + D, a chunk of rows at a time.

        `addmm` is not used: for some shapes it adds the products to the base one by one, which rounds more often than
        level B allows.
        """
        # Subsets of columns are rare: the reference handles them.
        if factors.cols is not None:
            super().reconstruct(base, factors, out, only_coded)
            return
        base = as_summand(base, out)
        left, right = unpack_factors(factors, wide_dtype(out.dtype))
        # Rows that are not coded are the base's; in place they are there already.
        if factors.rows is not None and not only_coded and out.data_ptr() != base.data_ptr():
            out.copy_(base)
        with full_precision(out.device):
            if factors.rows is None:
                _add_product(base, left, right, factors, out)
            else:
                _add_to_rows(base, left, right, factors, out)


def _add_product(base: Tensor, left: Tensor, right: Tensor, factors: PackedFactors, out: Tensor) -> None:
    """Write base + left^T right, for left [r, m] and right [r, n]."""
    count, columns = left.shape[1], right.shape[1]
    # Rows of a chunk: as many as fit, but at least 16, however wide they are.
    step = min(count, max(16, CHUNK_ELEMENTS * torch.get_num_threads() // columns))
    product = _scratch(step * columns, left.dtype).view(step, columns)
    for begin in range(0, count, step):
        end = min(begin + step, count)
        torch.mm(left[:, begin:end].T, right, out=product[: end - begin])
        # The product is complete before the base is added, so the sum is rounded once.
        if is_dithered(factors, out):
            out[begin:end] = add_base(product[: end - begin], base[begin:end], factors, out, begin)
        else:
            torch.add(base[begin:end], product[: end - begin], out=out[begin:end])


def _add_to_rows(base: Tensor, left: Tensor, right: Tensor, factors: PackedFactors, out: Tensor) -> None:
    """Write base + left^T right in the coded rows, for left [r, coded rows] and right [r, n]."""
    assert factors.rows is not None
    rows = factors.rows.long()
    step = min(len(rows), max(16, ROW_CHUNK_ELEMENTS * torch.get_num_threads() // right.shape[1]))
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        product = left[:, begin : begin + step].T @ right
        total = add_base(product, base.index_select(0, some), factors, out, begin)
        out.index_copy_(0, some, total.to(out.dtype))


_reused = threading.local()


def _scratch(count: int, dtype: torch.dtype) -> Tensor:
    """Return reused memory for products of this thread: page faults of fresh memory cost more than small products."""
    if dtype != torch.float32 or count > CHUNK_ELEMENTS * torch.get_num_threads():
        return torch.empty(count, dtype=dtype)
    if len(getattr(_reused, "memory", ())) < count:
        with torch.inference_mode(False):  # Memory allocated in inference mode could not be written outside of it.
            _reused.memory = torch.empty(CHUNK_ELEMENTS * torch.get_num_threads())
    memory: Tensor = _reused.memory[:count]
    return memory
