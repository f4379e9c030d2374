"""The water-filling bound: what follows from its definition, cases solved by hand, and no code of vectors below it."""

import math
import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.fidelity.limit import bound
from dtscodec.quantize.four_groups import four_groups

Floats = NDArray[np.float64]
Spectra = list[tuple[tuple[int, int], Floats]]

# Levels of least squared error for a normal variable, by bits (Max 1960).
LLOYD_MAX = {1: [0.7979], 2: [0.4528, 1.5104], 3: [0.2451, 0.7560, 1.3439, 2.1519]}


def power_law(shape: tuple[int, int], count: int, exponent: float = 0.7) -> tuple[tuple[int, int], Floats]:
    return shape, np.arange(1, count + 1, dtype=np.float64) ** -exponent


SPECTRA: Spectra = [
    power_law((300, 200), 200),
    power_law((200, 200), 150, 1.2),
    power_law((2000, 100), 100, 0.3),
    power_law((64, 256), 1),
]
BITS = [0, 10, 100, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 1e7]


def energy(spectra: Spectra) -> float:
    return sum(float((values**2).sum()) for _, values in spectra)


def test_no_bits_leave_all_energy_and_infinitely_many_leave_none() -> None:
    assert bound(SPECTRA, 0) == pytest.approx(energy(SPECTRA))
    assert bound(SPECTRA, math.inf) == 0
    assert bound(SPECTRA, 1e9) < 1e-9
    assert bound([((30, 30), np.ones(30))], 0) == pytest.approx(30)


def test_zero_matrices_and_none_at_all_have_no_error() -> None:
    assert bound([], 100) == 0
    assert bound([((20, 10), np.zeros(10))], 0) == 0
    assert bound([*SPECTRA, ((20, 10), np.zeros(10))], 1e4) == pytest.approx(bound(SPECTRA, 1e4))


@pytest.mark.parametrize("bits", [-1, math.nan])
def test_impossible_numbers_of_bits_are_refused(bits: float) -> None:
    with pytest.raises(ValueError, match="bits"):
        bound(SPECTRA, bits)


def test_more_bits_never_leave_more_and_each_saves_less_than_the_one_before() -> None:
    errors = np.array([bound(SPECTRA, bits) for bits in BITS])
    assert (np.diff(errors) < 0).all()
    slopes = np.diff(errors) / np.diff(BITS)
    assert (np.diff(slopes) > -1e-12).all()


@pytest.mark.parametrize("factor", [1e-3, 2.0, 1e4])
def test_the_error_goes_with_the_square_of_the_scale(factor: float) -> None:
    scaled = [(shape, values * factor) for shape, values in SPECTRA]
    for bits in BITS:
        assert bound(scaled, bits) == pytest.approx(bound(SPECTRA, bits) * factor**2)


def test_a_matrix_and_its_transpose_have_the_same_bound() -> None:
    turned = [((columns, rows), values) for (rows, columns), values in SPECTRA]
    assert [bound(turned, bits) for bits in BITS] == pytest.approx([bound(SPECTRA, bits) for bits in BITS])


def test_one_component_of_a_square_matrix_has_both_vectors_at_half_the_bits() -> None:
    # Two vectors of 100 free dimensions at 2 bits each: a sixteenth of each is lost.
    assert bound([((101, 101), np.array([3.0]))], 400) == pytest.approx(9 * (1 - (15 / 16) ** 2))


def test_few_bits_for_one_component_lie_on_the_line_to_where_it_touches() -> None:
    # Of (1 - 4^-r)^2 / r the largest value is at r = 0.9063 bits a dimension, where 0.5119 is kept.
    rates = np.linspace(0.01, 4, 400_000)
    best = ((1 - 4**-rates) ** 2 / rates).max()
    for rate in (0.1, 0.5, 0.9):
        assert bound([((101, 101), np.array([1.0]))], 200 * rate) == pytest.approx(1 - best * rate, rel=1e-6)


@pytest.mark.parametrize("bits", [200, 400, 1000])
def test_vectors_of_different_length_get_the_best_split_of_the_bits(bits: float) -> None:
    p, q = 300, 50
    first = np.linspace(0, bits, 100_001)
    kept = ((1 - 2 ** (-2 * first / p)) * (1 - 2 ** (-2 * (bits - first) / q))).max()
    found = 1 - bound([((p + 1, q + 1), np.array([1.0]))], bits)
    # 200 bits lie on the line of the hull, a little above any split.
    assert found == pytest.approx(kept, rel=1e-6) if bits > 200 else kept <= found < 1.05 * kept


def test_components_of_equal_energy_and_size_share_the_bits() -> None:
    alone = bound([((101, 101), np.array([1.0]))], 500)
    assert bound([((101, 101), np.array([1.0]))] * 7, 7 * 500) == pytest.approx(7 * alone)


def test_no_split_of_the_bits_among_matrices_leaves_less_than_all_together() -> None:
    first, second = SPECTRA[:1], SPECTRA[1:2]
    for bits in (3e3, 3e4, 3e5):
        parts = [bound(first, bits * part) + bound(second, bits * (1 - part)) for part in np.linspace(0, 1, 101)]
        together = bound(first + second, bits)
        assert together <= min(parts) * (1 + 1e-9)
        assert together == pytest.approx(min(parts), rel=1e-3)


@pytest.mark.parametrize("free", [1, 2, 10, 300])
def test_a_uniform_unit_vector_needs_more_bits_than_a_gaussian_one_of_its_free_dimensions(free: int) -> None:
    angles = (np.arange(100_000) + 0.5) * np.pi / 100_000
    cosines, weights = np.cos(angles), (free - 1) * np.log(np.sin(angles))
    for concentration in np.geomspace(0.01, 100, 25) * (free + 1):
        tilted = weights + concentration * cosines
        density = np.exp(tilted - tilted.max())
        mean = (density * cosines).sum() / density.sum()
        normal = np.log(density.sum()) + tilted.max() - np.log(np.exp(weights - weights.max()).sum()) - weights.max()
        # Relative entropy of the von Mises-Fisher channel to the uniform distribution, and the error it leaves.
        rate, lost = concentration * mean - normal, 1 - mean**2
        assert rate >= free / 2 * np.log(1 / lost)


def lloyd_max(factor: Floats, bits: int) -> Floats:
    """Each column rounded to the levels of a normal variable with its variance."""
    levels = np.array(LLOYD_MAX[bits])
    scale = np.sqrt((factor**2).mean(axis=0))
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, np.abs(factor) / scale)
    rounded: Floats = np.sign(factor) * levels[nearest] * scale
    return rounded


def four_levels(factor: Floats) -> Floats:
    codes, levels = four_groups(torch.from_numpy(factor.T.astype(np.float32).copy()))
    return torch.gather(levels, 1, codes.long()).T.double().numpy()


def best_scales(true: Floats, u: Floats, v: Floats) -> Floats:
    """The product of two factors [m, r] and [n, r] with the scales of least squared error."""
    scales = np.linalg.solve((u.T @ u) * (v.T @ v), ((u.T @ true) * v.T).sum(axis=1))
    product: Floats = (u * scales) @ v.T
    return product


@pytest.mark.parametrize("shape", [(200, 120), (100, 100), (50, 400)])
@pytest.mark.parametrize("exponent", [0.3, 0.7, 1.2])
def test_no_quantized_svd_of_the_same_bits_is_below_the_bound(shape: tuple[int, int], exponent: float) -> None:
    random = np.random.default_rng(0)
    short = min(shape)
    _, values = power_law(shape, short, exponent)
    u, v = (np.linalg.qr(random.standard_normal((length, short)))[0] for length in shape)
    true = (u * values) @ v.T
    for rank in (1, 4, 16, short // 2):
        coded = {bits: best_scales(true, *(lloyd_max(x[:, :rank], bits) for x in (u, v))) for bits in LLOYD_MAX}
        published = best_scales(true, four_levels(u[:, :rank]), four_levels(v[:, :rank]))
        for bits, decoded in [*coded.items(), (2, published)]:
            least = bound([(shape, values)], bits * rank * sum(shape))
            assert least <= np.square(true - decoded).sum()
            assert least > 0


def test_forty_matrices_of_384_components_take_less_than_a_second() -> None:
    spectra = [power_law((1536, 384), 384)] * 40
    start = time.process_time()
    bound(spectra, 3e6)
    assert time.process_time() - start < 1
