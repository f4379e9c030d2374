"""One matrix: a full SVD, what the authors of DTS compute, and what `best` does, on the same data in one run."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.common.timing import least_time
from benchmarks.speed.synthetic_checkpoints import delta, pool_of_numbers
from dtscodec.encoding.fitting.coordinate_descent import FittedComponents
from dtscodec.encoding.presets.recipe import LEAST_ERROR
from dtscodec.encoding.targets import Size
from dtscodec.linalg.spectrum import Factors, leading_factors
from dtscodec.linalg.svd import canonical_signs
from dtscodec.quantize.four_groups import four_groups

SHAPES = ((4096, 4096), (4096, 11008))
SIZE = Size.parse("0.5%")


def matrix_rows() -> list[dict[str, Any]]:
    """Seconds of each way, and the error that refits end with from exact factors and from ours."""
    pool = pool_of_numbers()
    return [_row(delta(pool, "matrix", shape)) for shape in SHAPES]


def rank_of(shape: tuple[int, int]) -> int:
    """Components that fill the size if each number takes two bits.

    >>> rank_of((4096, 4096))
    81
    """
    rows, columns = shape
    return SIZE.in_bytes(2 * rows * columns, 0) * 4 // (rows + columns)


def _row(matrix: Tensor) -> dict[str, Any]:
    rows, columns = matrix.shape
    rank = rank_of((rows, columns))
    exact, full = least_time(lambda: _full(matrix, rank), repeats=1)
    _, published = least_time(lambda: _published(matrix, rank), repeats=1)
    ours, factorized = least_time(lambda: leading_factors(matrix, rank))
    near, refined = least_time(lambda: _refined(matrix, ours))
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


def _full(matrix: Tensor, rank: int) -> Factors:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return Factors(*canonical_signs(u[:, :rank], s[:rank], v[:rank]), s)


def _published(matrix: Tensor, rank: int) -> None:
    """All singular vectors of both sides, of which the leading ones are quantized."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=True)
    four_groups(u[:, :rank].reshape(1, -1))
    four_groups(v[:rank].reshape(1, -1))


def _refined(matrix: Tensor, factors: Factors) -> tuple[FittedComponents, Tensor]:
    fit = FittedComponents(matrix, factors, [2] * len(factors.s), LEAST_ERROR)
    return fit, fit.solve_scales(lambda numbers: numbers)


def _error(matrix: Tensor, fitted: tuple[FittedComponents, Tensor]) -> float:
    fit, scales = fitted
    left = matrix - (fit.u.plain() * scales[:, None]).T @ fit.v.plain()
    return float(left.norm() / matrix.norm())
