"""One matrix: a full SVD, what the authors of DTS compute, and what `best` does, on the same data in one run."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.speed.pair import POOL, delta
from dtscodec.codec.codebook import four_groups
from dtscodec.codec.factorize import Factors, canonical_signs, leading_factors
from dtscodec.codec.recipe import LEAST_ERROR
from dtscodec.codec.refine import Refined
from dtscodec.codec.size import Size

SHAPES = ((4096, 4096), (4096, 11008))
SIZE = Size.parse("0.5%")
REPEATS = 3
RESULT = TypeVar("RESULT")


def matrix_rows() -> list[dict[str, Any]]:
    """Seconds of each way, and the error that refits end with from exact factors and from ours."""
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0))
    return [_row(delta(pool, "matrix", shape)) for shape in SHAPES]


def _row(matrix: Tensor) -> dict[str, Any]:
    rows, columns = matrix.shape
    rank = SIZE.in_bytes(2 * matrix.numel(), 0) * 4 // (rows + columns)
    exact, full = _timed(lambda: _full(matrix, rank), repeats=1)
    _, published = _timed(lambda: _published(matrix, rank), repeats=1)
    ours, factorized = _timed(lambda: leading_factors(matrix, rank))
    near, refined = _timed(lambda: _refined(matrix, ours))
    return {
        "shape": [rows, columns],
        "rank": rank,
        "threads": torch.get_num_threads(),
        "seconds": {
            "full SVD": full,
            "published algorithm": published,
            "our factors": factorized,
            "our factors, quantized and refitted": factorized + refined,
        },
        "error": {"from exact factors": _error(matrix, _refined(matrix, exact)), "from ours": _error(matrix, near)},
    }


def _timed(work: Callable[[], RESULT], repeats: int = REPEATS) -> tuple[RESULT, float]:
    """A result, and the least of some times."""
    results = list(_runs(work, repeats))
    return results[0][0], min(seconds for _, seconds in results)


def _runs(work: Callable[[], RESULT], repeats: int) -> Iterator[tuple[RESULT, float]]:
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        yield result, time.perf_counter() - start


def _full(matrix: Tensor, rank: int) -> Factors:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return Factors(*canonical_signs(u[:, :rank], s[:rank], v[:rank]), s)


def _published(matrix: Tensor, rank: int) -> None:
    """All singular vectors of both sides, of which the leading ones are quantized."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=True)
    four_groups(u[:, :rank].reshape(1, -1))
    four_groups(v[:rank].reshape(1, -1))


def _refined(matrix: Tensor, factors: Factors) -> tuple[Refined, Tensor]:
    fit = Refined(matrix, factors, [2] * len(factors.s), LEAST_ERROR)
    return fit, fit.solve_scales(lambda numbers: numbers)


def _error(matrix: Tensor, fitted: tuple[Refined, Tensor]) -> float:
    fit, scales = fitted
    left = matrix - (fit.u.plain() * scales[:, None]).T @ fit.v.plain()
    return float(left.norm() / matrix.norm())
