"""Factors of all matrices of a model: whether time goes with the parameters and the rank, as models grow."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.common.run_log import RunLog
from benchmarks.common.timing import least_time
from benchmarks.speed.matrices import rank_of
from benchmarks.speed.synthetic_checkpoints import SHAPES, Shape, delta, pool_of_numbers
from dtscodec.linalg.spectrum import leading_factors

MODELS = ("0.5", "1", "3", "7")
"""Not the smallest: its matrices are decomposed in full."""
RANK = 64
"""At which time must go with the parameters alone."""
ENOUGH = 0.3


def factor_rows(names: Sequence[str], log: RunLog) -> list[dict[str, Any]]:
    """For models of these sizes, each distinct matrix timed once and counted as often as the model has it."""
    pool = pool_of_numbers()
    rows = []
    for name in names:
        matrices = [_matrix(pool, shape, count) for shape, count in matrices_of(SHAPES[name]).items()]
        rows.append({"model": name, **total(matrices), "matrices": matrices})
        log.say(f"{name} B: factors in {rows[-1]['seconds']:.1f} s, at rank {RANK} in {rows[-1]['seconds_fixed']:.1f}")
    return rows


def matrices_of(shape: Shape) -> dict[tuple[int, int], int]:
    """Shapes of the matrices of a model, and how many it has of each.

    >>> matrices_of(SHAPES["7"])[4096, 4096]
    128
    """
    return dict(Counter((size[0], size[1]) for size in shape.tensors().values() if len(size) == 2))


def _matrix(pool: Tensor, shape: tuple[int, int], count: int) -> dict[str, Any]:
    matrix, rank = delta(pool, f"factors {shape}", shape), rank_of(shape)
    _, seconds = least_time(lambda: leading_factors(matrix, rank), enough=ENOUGH)
    _, fixed = least_time(lambda: leading_factors(matrix, RANK), enough=ENOUGH)
    return {"shape": list(shape), "count": count, "rank": rank, "seconds": seconds, "seconds_fixed": fixed}


def total(matrices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over a model: parameters, m n r, and seconds at the ranks of the size and at the fixed rank."""
    result: dict[str, Any] = {"parameters": 0, "work": 0, "seconds": 0.0, "seconds_fixed": 0.0}
    for matrix in matrices:
        rows, columns = matrix["shape"]
        result["parameters"] += matrix["count"] * rows * columns
        result["work"] += matrix["count"] * rows * columns * matrix["rank"]
        for key in ("seconds", "seconds_fixed"):
            result[key] += matrix["count"] * matrix[key]
    return result
