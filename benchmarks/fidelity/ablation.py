"""Effect of each ingredient of `best`: the same sizes with one of them taken out, as real files; and code books
that the format lacks, counted.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.fidelity.sweep import FEW, FineTuneBench
from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.fitting.coordinate_descent import FittedComponents
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.dense_delta import DenseDelta
from dtscodec.encoding.targets import RankShare, Size
from dtscodec.linalg.spectrum import leading_factors

SIZES = ("0.1%", "0.8%")
VARIANTS = {
    "best": Recipe(),
    "levels of Lloyd and Max": Recipe(fitted_levels=True),
    "no refits": Recipe(rounds=0),
    "no gain": Recipe(gain_power=None),
    "one gain for all components": Recipe(direction_gains=False),
    "one gain, by the norm kept (a = 1)": Recipe(gain_power=1.0, direction_gains=False),
    "one gain, without a limit": Recipe(largest_gain=math.inf, direction_gains=False),
    "two bits only": Recipe(widths=(2,)),
    "precision counted in full": Recipe(precision_weight=1.0),
    "all rows of embeddings": Recipe(row_subsets=False),
}
POOLED = "no pooling: an equal share of rank"
LEVELS = (2, 4, 8, 16)
ROWS_OF_TALL = 1024
"""Rows of an embedding that the comparison of levels codes: those that changed most."""


def ablate(bench: FineTuneBench) -> None:
    """Every variant at every size."""
    for size in SIZES:
        for name, recipe in VARIANTS.items():
            bench.file(f"ablation: {name}", size, EncodeConfig(Size.parse(size), Best(recipe)), few=True)
        _without_pooling(bench, size)


def vary_levels(bench: FineTuneBench) -> None:
    """Code books of other sizes and scopes, at every size."""
    for size in SIZES:
        for method, count, scope in _code_books():
            _counted(bench, method, size, count, scope)


def _without_pooling(bench: FineTuneBench, size: str) -> None:
    """The largest equal share of rank whose pack is no larger, by bisection."""
    if bench.log.has(f"ablation: {POOLED}", size, 0, FEW):
        return
    allowed = Size.parse(size).in_bytes(bench.weights.nbytes(), 0)
    low, high = 0.0, 0.5
    for _ in range(7):
        share = (low + high) / 2
        path = bench.encode(EncodeConfig(RankShare(share)))
        low, high = (share, high) if path.stat().st_size <= allowed else (low, share)
        path.unlink()
    if low:
        bench.file(f"ablation: {POOLED}", size, EncodeConfig(RankShare(low)), few=True)


def _code_books() -> Iterator[tuple[str, int, str]]:
    for count in LEVELS:
        yield f"levels: {count} per matrix", count, "matrix"
    yield "levels: 4 per vector", 4, "vector"


def _counted(bench: FineTuneBench, method: str, size: str, count: int, scope: str) -> None:
    """Components in code books that the format need not have: bytes are counted, not written.

    The largest components for their bytes until the size is spent; refits and gain as in `best`, one code book only, of
    Lloyd-Max levels at every size.
    """
    if bench.log.has(method, size, 0, FEW):
        return
    matrices = {name: _rows(delta) for name, delta in bench.weights.matrices().items() if min(delta.shape) > 2}
    budget = Size.parse(size).in_bytes(bench.weights.nbytes(), 0) - bench.weights.head_bytes()
    cost = {name: _cost(changed, count, scope) for name, changed in matrices.items()}
    offers = sorted(
        (-(float(s) ** 2) / cost[name], name)
        for name, changed in matrices.items()
        for s in torch.linalg.svdvals(changed.values)
    )
    ranks: dict[str, int] = dict.fromkeys(matrices, 0)
    spent = 0
    for _, name in offers:
        if spent + cost[name] <= budget:
            ranks[name] += 1
            spent += cost[name]
    deltas = {name: _decoded(matrices[name], rank, count, scope) for name, rank in ranks.items() if rank}
    size_of = spent + bench.weights.head_bytes()
    bench.add(method, size, 0, size_of, bench.weights.decoded(deltas), 0.0, (FEW,))


def _rows(delta: Tensor) -> DenseDelta:
    changed = DenseDelta.of(delta, None)
    assert changed is not None
    return changed.largest_rows(ROWS_OF_TALL) if len(delta) > 4 * delta.shape[1] else changed


def _cost(changed: DenseDelta, count: int, scope: str) -> int:
    """Bytes of a component: bits for its elements, a scale, and where every vector has levels of its own, those."""
    bits = (count - 1).bit_length()
    own = 2 * 2 * count if scope == "vector" else 0
    return -(-sum(changed.values.shape) * bits // 8) + 2 + own


def _decoded(changed: DenseDelta, rank: int, count: int, scope: str) -> Tensor:
    factors = leading_factors(changed.values, rank)
    recipe = Recipe(fitted_levels=True, levels=count, per_vector=scope == "vector")
    refined = FittedComponents(changed.values, factors, [2] * rank, recipe)
    scales = refined.solve_scales(lambda numbers: numbers)
    scales = scales * refined.gains(scales, 0.0)
    whole = torch.zeros(changed.height, changed.columns)
    rows = torch.ones(changed.height, dtype=torch.bool) if changed.rows is None else torch.from_numpy(changed.rows)
    columns = torch.ones(changed.columns, dtype=torch.bool) if changed.cols is None else torch.from_numpy(changed.cols)
    part = whole[rows]
    part[:, columns] = (refined.u.plain() * scales[:, None]).T @ refined.v.plain()
    whole[rows] = part
    return whole
