"""One matrix of 4096 x 4096 at rank 82, as 0.5 % of a bf16 checkpoint gives it."""

from typing import Any

import torch

from benchmarks.common.timing import median_times
from dtscodec.format.blocks import Band, BandFactors, LowRank
from dtscodec.format.streams import Streams
from dtscodec.kernels.packed import PackedFactors, Store
from dtscodec.kernels.select import backend_for
from dtscodec.kernels.unpack import unpack_factors
from dtscodec.quantize.packing import PackedVectors, pack_codes

SIDE, RANK = 4096, 82
DTYPES = (torch.float32, torch.bfloat16)


def rows() -> list[dict[str, Any]]:
    """Seconds of rebuilding and of the floor, by dtype."""
    return [_row(dtype) for dtype in DTYPES]


def _row(dtype: torch.dtype) -> dict[str, Any]:
    factors = _factors()
    left, right = unpack_factors(factors)
    left = left.T.contiguous()
    base = torch.randn(SIDE, SIDE).to(dtype)
    out, wide, result = torch.empty_like(base), torch.empty(SIDE, SIDE), torch.empty(SIDE, SIDE)
    backend = backend_for(base.device)

    def floor() -> None:
        if dtype == torch.float32:
            torch.addmm(base, left, right, out=out)
        else:
            wide.copy_(base)
            torch.addmm(wide, left, right, out=result)
            out.copy_(result)

    seconds = median_times({"ours": lambda: backend.reconstruct(base, factors, out), "floor": floor})
    return {"shape": [SIDE, SIDE], "rank": RANK, "dtype": str(dtype).removeprefix("torch."), "seconds": seconds}


def _factors() -> PackedFactors:
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (2, RANK, SIDE), dtype=torch.uint8, generator=random).numpy()
    levels = torch.tensor([[-1.5, -0.5, 0.5, 1.5]]).numpy()
    u, v = (PackedVectors(pack_codes(one, 2), levels, SIDE, 2) for one in codes)
    numbers, bands = LowRank.join(1.0, [BandFactors(u, v, torch.full((RANK,), 1e-3).numpy())])
    block = LowRank(SIDE, None, None, None, (Band(RANK, 2),))
    store = Store([(block, SIDE)], torch.device("cpu"))
    return store.add_factors(block.split(SIDE, Streams(b"", numbers, bands)))
