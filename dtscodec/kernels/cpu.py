"""The backend for processors: the reference's arithmetic, in pieces that stay in a core's cache."""

import torch
from torch import Tensor

from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.reference import Reference, as_summand, full_precision, wide_dtype
from dtscodec.kernels.unpack import unpack_factors

PIECE = 2**18
"""Elements of a product that is added to the base before it leaves the cache: 1 MiB of float32."""


class Cpu(Reference):
    """See `dtscodec.kernels.backend.Backend`."""

    def reconstruct(self, base: Tensor, factors: PackedFactors, out: Tensor) -> None:
        """Write W = base + D, some rows at a time.

        Never by `addmm`: for some shapes it adds the products to the base one by one, which rounds more often than
        level B allows.
        """
        if factors.cols is not None:
            super().reconstruct(base, factors, out)
            return
        base = as_summand(base, out)
        left, right = unpack_factors(factors, wide_dtype(out.dtype))
        if factors.rows is not None and out.data_ptr() != base.data_ptr():
            out.copy_(base)
        count, columns = left.shape[1], right.shape[1]
        step = min(count, max(16, PIECE // columns))
        delta = torch.empty((step, columns), dtype=left.dtype)
        rows = None if factors.rows is None else factors.rows.long()
        with full_precision(out.device):
            for begin in range(0, count, step):
                end = min(begin + step, count)
                product = torch.mm(left[:, begin:end].T, right, out=delta[: end - begin])
                if rows is None:
                    torch.add(base[begin:end], product, out=out[begin:end])
                else:
                    some = rows[begin:end]
                    out.index_copy_(0, some, product.add_(base.index_select(0, some)).to(out.dtype))
