"""Levels of least squared error: the conditions of Lloyd and Max, and their table for the normal distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.lloyd_max import fit_levels, nearest

finite = st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
vectors = arrays(np.float32, st.integers(1, 60), elements=finite).map(torch.from_numpy)
counts = st.integers(2, 16)
seeds = st.integers(0, 2**32 - 1)
KINDS = ["normal", "laplace", "uniform", "student", "logistic"]


@st.composite
def samples(draw: st.DrawFn, least: int = 64) -> Tensor:
    """Samples of a symmetric distribution, of any scale: what elements of singular vectors are like."""
    rng, n = np.random.default_rng(draw(seeds)), draw(st.integers(least, 2000))
    kind = draw(st.sampled_from(KINDS))
    values = {
        "normal": lambda: rng.normal(size=n),
        "laplace": lambda: rng.laplace(size=n),
        "uniform": lambda: rng.uniform(-1, 1, n),
        "student": lambda: rng.standard_t(5, n),
        "logistic": lambda: rng.logistic(size=n),
    }[kind]()
    return torch.from_numpy((values * 10.0 ** draw(st.integers(-6, 3))).astype(np.float32))


def square_error(values: Tensor, levels: Tensor) -> float:
    return float((values.double() - levels.double()[nearest(values, levels)]).square().sum())


@given(vectors, counts)
def test_levels_ascend_and_are_finite(values: Tensor, count: int) -> None:
    levels = fit_levels(values, count)
    assert levels.shape == (count,)
    assert levels.dtype == torch.float32
    assert (levels.diff() >= 0).all()
    assert levels.isfinite().all()


def published_error(values: Tensor) -> float:
    codes, levels = four_groups(values[None])
    return float((values.double() - levels[0].double()[codes[0].long()]).square().sum())


@given(samples())
@settings(max_examples=60)
def test_the_error_is_no_larger_than_that_of_the_published_four_groups(values: Tensor) -> None:
    assert square_error(values, fit_levels(values)) <= published_error(values) * (1 + 1e-6)


@given(samples(), st.sampled_from([-30.0, -3.0, -1.0, 1.0, 3.0, 30.0]))
@settings(max_examples=60)
def test_the_error_is_no_larger_than_that_of_the_published_four_groups_where_most_values_have_one_sign(
    values: Tensor, mean: float
) -> None:
    moved = values + mean * values.square().mean().sqrt()
    # Where the mean outweighs the spread, what float32 rounds off is all that lies between two good fits.
    slack = 1e-10 * float(moved.double().square().sum())
    assert square_error(moved, fit_levels(moved)) <= published_error(moved) * (1 + 1e-3) + slack


def test_of_a_normal_sample_levels_and_distortion_are_those_of_max_1960() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(400_000).astype(np.float32))
    levels = fit_levels(values)
    assert levels.tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=0.015)
    assert square_error(values, levels) / len(values) == pytest.approx(0.1175, abs=0.001)


@given(vectors, arrays(np.float32, st.integers(1, 16), elements=finite).map(np.sort).map(torch.from_numpy))
def test_nearest_is_as_near_as_any_level(values: Tensor, levels: Tensor) -> None:
    apart = (values.double()[:, None] - levels.double()).abs()
    ours = apart.gather(1, nearest(values, levels)[:, None])[:, 0]
    # The border between two levels is rounded to float32.
    slack = 2.0**-23 * levels.abs().max()
    assert (ours <= apart.min(dim=1).values + slack).all()


@given(samples(), st.lists(finite, min_size=1, max_size=16, unique=True).map(sorted))
@settings(max_examples=40)
def test_nearest_keeps_the_shape(values: Tensor, levels: list[float]) -> None:
    table = torch.tensor(levels, dtype=torch.float32)
    square = values[:64].reshape(8, 8)
    assert torch.equal(nearest(square, table), nearest(square.flatten(), table).reshape(8, 8))


def at_rest(values: Tensor, levels: Tensor, close: float) -> bool:
    codes = nearest(values, levels)
    sums = torch.bincount(codes, values.double(), len(levels))
    members = torch.bincount(codes, minlength=len(levels))
    means = sums / members.clamp(min=1)
    return bool(((means - levels.double()).abs()[members > 0] <= close * values.square().mean().sqrt()).all())


@given(samples().map(lambda values: values[:300]), st.integers(2, 8))
@settings(max_examples=60)
def test_each_level_is_the_mean_of_its_cell(values: Tensor, count: int) -> None:
    assert at_rest(values, fit_levels(values, count), 1e-4)


@given(samples(), st.sampled_from([-1.0, 2.0**-20, -(2.0**20)]))
@settings(max_examples=40)
def test_a_factor_passes_through(values: Tensor, factor: float) -> None:
    # Only nearly: thresholds belong to the cell below them, and a change of sign turns that round.
    expected = square_error(values, fit_levels(values)) * factor**2
    assert square_error(values * factor, fit_levels(values * factor)) == pytest.approx(expected, rel=1e-3)


@given(st.lists(finite, min_size=1, max_size=2, unique_by=abs), st.integers(1, 20))
def test_one_or_two_values_of_different_sign_have_no_error(distinct: list[float], repeats: int) -> None:
    if len(distinct) == 2:
        distinct = [abs(distinct[0]), -abs(distinct[1])]
    values = torch.tensor(distinct * repeats, dtype=torch.float32)
    levels = fit_levels(values)
    assert square_error(values, levels) <= 1e-12 * float(values.square().sum())


@given(st.lists(finite, min_size=1, max_size=4), st.integers(1, 20))
def test_few_distinct_values_have_no_more_error_than_zero_has(distinct: list[float], repeats: int) -> None:
    values = torch.tensor(distinct * repeats, dtype=torch.float32)
    assert square_error(values, fit_levels(values)) <= float(values.double().square().sum()) * (1 + 1e-6)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_zeros_get_levels_of_zero(count: int) -> None:
    assert fit_levels(torch.zeros(count)).tolist() == [0, 0, 0, 0]
