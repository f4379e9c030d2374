"""The four-group quantizer against the published algorithm, and its properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.widths import NORMAL_LEVELS
from tests.encoding.published import published_quantizer

finite = st.floats(-1e3, 1e3, width=32).filter(lambda x: abs(x) > 1e-6)
vectors = arrays(np.float32, st.integers(1, 60), elements=finite)


def distinct(least: int) -> st.SearchStrategy[np.ndarray]:
    """Vectors of elements of different magnitude, at least so many."""
    lists = st.lists(finite, min_size=least, max_size=60, unique_by=abs)
    return lists.map(lambda elements: np.array(elements, np.float32))


def quantized(values: np.ndarray) -> np.ndarray:
    codes, levels = four_groups(torch.from_numpy(values.reshape(1, -1)))
    return np.take(levels[0].numpy(), codes[0].numpy()).reshape(values.shape)


@given(distinct(1))
def test_it_is_the_published_quantizer_to_float_rounding(values: np.ndarray) -> None:
    assert np.allclose(quantized(values), published_quantizer(values), rtol=1e-6, atol=0)


def test_the_worked_example_of_the_published_rule() -> None:
    assert quantized(np.array([3, 2, 1, -1], np.float32)) == pytest.approx([3, 1.5811388, 1.5811388, -1])


@given(vectors)
def test_the_norm_does_not_change(values: np.ndarray) -> None:
    assert np.linalg.norm(quantized(values)) == pytest.approx(np.linalg.norm(values), rel=1e-5)


@given(vectors)
def test_signs_do_not_change(values: np.ndarray) -> None:
    assert np.array_equal(np.sign(quantized(values)), np.sign(values))


@given(vectors, st.sampled_from([0.25, 2.0, 1024.0]))
def test_a_positive_factor_passes_through(values: np.ndarray, factor: float) -> None:
    scaled = quantized((values * np.float32(factor)).astype(np.float32))
    assert np.allclose(scaled, quantized(values) * factor, rtol=1e-6)


@given(distinct(1))
def test_a_change_of_sign_passes_through(values: np.ndarray) -> None:
    assert np.allclose(quantized(-values), -quantized(values), rtol=1e-6)


@given(vectors)
def test_levels_ascend(values: np.ndarray) -> None:
    _, levels = four_groups(torch.from_numpy(values.reshape(1, -1)))
    assert (levels.diff(dim=1) >= 0).all()


@given(distinct(4))
def test_quantizing_twice_changes_nothing_more(values: np.ndarray) -> None:
    once = quantized(values)
    assert np.allclose(quantized(once), once, rtol=1e-5)


def test_of_equal_elements_at_the_cut_the_first_are_the_large_ones() -> None:
    codes, _ = four_groups(torch.tensor([[1.0, 1.0, 1.0, 1.0, -1.0, -1.0]]))
    assert codes.tolist() == [[3, 3, 2, 2, 0, 1]]


def test_rows_are_sets_of_their_own() -> None:
    values = torch.tensor([[1.0, 2.0, -1.0, -4.0], [10.0, 30.0, -20.0, -5.0]])
    codes, levels = four_groups(values)
    for row in range(2):
        alone_codes, alone_levels = four_groups(values[row : row + 1])
        assert torch.equal(codes[row], alone_codes[0])
        assert torch.equal(levels[row], alone_levels[0])


@pytest.mark.parametrize("values", [[1.0, 2.0], [-1.0, -2.0], [5.0], [-5.0], [0.0], [0.0, 0.0, 3.0], [0.0, -2.0]])
def test_empty_groups_leave_levels_that_ascend_and_decode_right(values: list[float]) -> None:
    array = np.array(values, np.float32)
    codes, levels = four_groups(torch.from_numpy(array.reshape(1, -1)))
    assert (levels.diff(dim=1) >= 0).all()
    assert np.allclose(quantized(array), array)  # at most one element a group, and a sign left for the zeros
    assert codes.max() <= 3


def test_columns_quantized_by_vector_keep_unit_norm_and_by_matrix_do_not() -> None:
    u = torch.linalg.qr(torch.randn(200, 20, generator=torch.Generator().manual_seed(0)))[0].T.contiguous()
    codes, levels = four_groups(u)
    by_vector = torch.gather(levels, 1, codes.long())
    assert (by_vector.norm(dim=1) - 1).abs().max() < 1e-6
    codes, levels = four_groups(u.reshape(1, -1))
    by_matrix = levels[0][codes.long()].reshape(u.shape)
    assert (by_matrix.norm(dim=1) - 1).abs().max() > 1e-3


def test_by_vector_flipping_a_pair_of_singular_vectors_changes_nothing_by_matrix_it_may() -> None:
    u, v = torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(0))
    flips = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])[:, None]

    def product(u: torch.Tensor, v: torch.Tensor, by_vector: bool) -> torch.Tensor:
        left, right = (_coded(x, by_vector) for x in (u, v))
        return left.T @ right

    assert torch.allclose(product(u, v, True), product(flips * u, flips * v, True), atol=1e-6)
    assert not torch.allclose(product(u, v, False), product(flips * u, flips * v, False), atol=1e-3)


def _coded(vectors: torch.Tensor, by_vector: bool) -> torch.Tensor:
    rows = vectors if by_vector else vectors.reshape(1, -1)
    codes, levels = four_groups(rows)
    return torch.gather(levels, 1, codes.long()).reshape(vectors.shape)


def test_gaussian_elements_keep_a_cosine_of_about_0_9275() -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    cosine = values @ quantized(values) / np.linalg.norm(values) / np.linalg.norm(quantized(values))
    assert cosine == pytest.approx(0.9275, abs=0.001)


def test_the_fixed_levels_are_those_of_least_error_for_a_normal_variable_rounded_to_bf16() -> None:
    samples = np.sort(np.random.default_rng(0).standard_normal(2_000_000))
    levels = NORMAL_LEVELS.astype(np.float64)
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, samples)
    means = np.array([samples[nearest == code].mean() for code in range(16)])
    assert np.allclose(means, levels, rtol=0.01)
    assert np.array_equal(NORMAL_LEVELS, torch.from_numpy(NORMAL_LEVELS).bfloat16().float().numpy())
