"""Products in three parts of bfloat16 on a tensor core: within level B (spec, section 8) by models of the units.

This needs no interpreter and no GPU: the arithmetic is repeated here in float64. Triton's `bf16x6` adds five small
products to zero, the large one on top, and the sum to what there was, in float32. A unit multiplies exactly, shifts
the products of 16 components and its accumulator to the largest exponent, drops what lies below its last bit, adds,
and cuts the sum to float32. (M. Fasi et al., "Numerical behavior of NVIDIA tensor cores", 2021: up to two bits more
than float32 has are kept before the sum.)
"""

import numpy as np
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

UNIT = 16
"""Components that one instruction takes."""


def as_bfloat16(values: Singles) -> Singles:
    """Rounded to bfloat16, to nearest even."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint32] = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def parts(values: Singles) -> list[Singles]:
    """Three bfloat16 numbers whose sum is the value."""
    found = []
    for _ in range(3):
        found.append(as_bfloat16(values))
        values = values - found[-1]
    return found


def cut(values: Floats, unit: Floats) -> Floats:
    """Cut to multiples of a unit, towards zero."""
    return np.trunc(values / unit) * unit


def tensor_core(a: Singles, b: Singles, total: Floats, more_bits: int) -> Floats:
    """One instruction for many elements at once: total + sum over the last axis of a b."""
    terms = np.concatenate([a.astype(np.float64) * b, total[..., None]], axis=-1)
    largest = np.maximum(np.abs(terms).max(axis=-1, keepdims=True), 2.0**-126)
    exponent = np.floor(np.log2(largest))
    found = cut(terms, np.exp2(exponent - 23 - more_bits)).sum(axis=-1)
    top = np.floor(np.log2(np.maximum(np.abs(found), 2.0**-126)))
    return cut(found, np.exp2(top - 23))


def product(us: Singles, v: Singles, more_bits: int) -> Floats:
    """The sum over the last axis of us v as the kernels compute it."""
    delta = np.zeros(us.shape[:-1], np.float32)
    for begin in range(0, us.shape[-1], UNIT):
        a, b = parts(us[..., begin : begin + UNIT]), parts(v[..., begin : begin + UNIT])
        total = np.zeros(us.shape[:-1])
        for i, j in ((1, 1), (2, 0), (0, 2), (1, 0), (0, 1), (0, 0)):
            total = tensor_core(a[i], b[j], total, more_bits)
        delta = delta + total.astype(np.float32)
    return delta.astype(np.float64)


def factors(rank: int, kind: str, count: int) -> tuple[Singles, Singles, Floats]:
    """Random u s (rounded to float32) and v, and u s exactly, for many elements."""
    random = np.random.default_rng(rank)
    u, v = random.standard_normal((2, count, rank)).astype(np.float32)
    if kind == "one sign":
        u, v = np.abs(u), np.abs(v)
    if kind == "four levels":  # Just below where bfloat16 rounds up: no part is zero.
        levels = np.array([-1.0078124, -0.2519531, 0.2519531, 1.0078124], np.float32)
        u, v = levels[random.integers(0, 4, (2, count, rank))]
    scale = np.exp(-np.arange(rank) / 8) if kind == "falling" else random.uniform(0.5, 2, rank)
    scale = scale.astype(np.float32)
    return u * scale, v, u.astype(np.float64) * scale


def test_three_parts_are_the_whole_value() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    assert np.array_equal(np.sum(parts(values), axis=0, dtype=np.float64), values)


@pytest.mark.parametrize("more_bits", [0, 1, 2])
@pytest.mark.parametrize("kind", ["normal", "one sign", "four levels", "falling"])
@pytest.mark.parametrize("rank", [1, 2, 3, 15, 16, 17, 82, 300])
def test_products_are_within_level_b(rank: int, kind: str, more_bits: int) -> None:
    us, v, exact = factors(rank, kind, max(200, 200_000 // rank // 4))
    error = np.abs(product(us, v, more_bits) - (exact * v).sum(axis=-1))
    allowed = (rank + 4) * 2.0**-24 * np.abs(exact * v).sum(axis=-1)
    assert (error <= allowed).all(), (error / allowed).max()
