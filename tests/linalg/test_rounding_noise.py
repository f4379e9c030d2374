"""The model of rounding noise against the noise of actual rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtscodec.linalg.rounding_noise import Noise, rounding_noise, signal_energies

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(96, 256)
half = st.sampled_from([torch.bfloat16, torch.float16])
few = settings(deadline=None, max_examples=25)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


class Merged:
    """A low-rank change of known singular values, added to weights in float32 and rounded to half precision."""

    def __init__(self, seed: int, rows: int, columns: int, dtype: torch.dtype, singular: list[float]) -> None:
        rank = len(singular)
        u, v = (torch.linalg.qr(normal(seed + i, n, rank))[0] for i, n in ((1, rows), (2, columns)))
        weights = normal(seed, rows, columns) * 0.02
        exact = weights + (u * torch.tensor(singular)) @ v.T
        self.stored = exact.to(dtype)
        self.delta = self.stored.float() - weights
        self.error = self.stored.double() - exact.double()
        self.noise = rounding_noise(self.stored, self.delta)


@st.composite
def merged(draw: st.DrawFn) -> Merged:
    singular = draw(st.lists(st.floats(0.0625, 0.5), min_size=1, max_size=8))
    return Merged(draw(seeds), draw(sides), draw(sides), draw(half), singular)


@few
@given(merged())
def test_the_squared_error_of_rounding_is_as_expected(merge: Merged) -> None:
    assert merge.noise.total == pytest.approx(float(merge.error.square().sum()), rel=0.15)


@few
@given(merged())
def test_rows_and_columns_each_hold_all_of_the_noise(merge: Merged) -> None:
    assert float(merge.noise.columns.sum()) == pytest.approx(merge.noise.total, rel=1e-9)
    assert (len(merge.noise.rows), len(merge.noise.columns)) == tuple(merge.delta.shape)


@few
@given(merged())
def test_the_edge_lies_above_the_largest_singular_value_of_the_noise_and_not_far(merge: Merged) -> None:
    largest = float(torch.linalg.matrix_norm(merge.error, 2))
    assert largest < merge.noise.edge <= 1.5 * largest


@few
@given(seeds, sides, sides, half)
def test_the_noise_of_a_few_large_rows_is_found_there(seed: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    weights = normal(seed, rows, columns) * 0.02
    weights[: rows // 4] *= 16
    exact = weights + normal(seed + 1, rows, columns) * 0.01
    stored = exact.to(dtype)
    error = (stored.double() - exact.double()).square().sum(1)
    noise = rounding_noise(stored, stored.float() - weights)
    for part in (slice(0, rows // 4), slice(rows // 4, rows)):
        assert float(noise.rows[part].sum()) == pytest.approx(float(error[part].sum()), rel=0.1)


@few
@given(merged())
def test_noise_alone_has_no_signal(merge: Merged) -> None:
    assert not signal_energies(torch.linalg.svdvals(merge.error), merge.noise).any()


@few
@given(seeds, sides, sides, half, st.lists(st.floats(6, 20), min_size=1, max_size=8))
def test_each_component_well_above_the_noise_is_recovered_and_no_other(
    seed: int, rows: int, columns: int, dtype: torch.dtype, times: list[float]
) -> None:
    edge = Merged(seed, rows, columns, dtype, [0.1]).noise.edge
    singular = sorted((edge * share for share in times), reverse=True)
    merge = Merged(seed, rows, columns, dtype, singular)
    energies = signal_energies(torch.linalg.svdvals(merge.delta.double()), merge.noise)
    assert int((energies > 0).sum()) == len(singular)
    assert energies[: len(singular)].sqrt().tolist() == pytest.approx(singular, rel=0.05)


@few
@given(seeds, sides, sides, half, st.floats(1.5, 20))
def test_a_component_near_the_noise_is_recovered_without_what_the_noise_lifted_it_by(
    seed: int, rows: int, columns: int, dtype: torch.dtype, times: float
) -> None:
    strength = Merged(seed, rows, columns, dtype, [0.1]).noise.edge * times
    merge = Merged(seed, rows, columns, dtype, [strength])
    lifted = torch.linalg.svdvals(merge.delta.double())
    found = float(signal_energies(lifted, merge.noise)[0].sqrt())
    # The noise in the component's own direction is one normal variable; it cannot be known.
    chance = (merge.noise.total / (rows * columns)) ** 0.5
    assert abs(found - strength) <= 5 * chance
    assert found < float(lifted[0])


@few
@given(merged())
def test_the_energy_is_never_more_than_the_squared_singular_value(merge: Merged) -> None:
    singular = torch.linalg.svdvals(merge.delta.double())
    assert (signal_energies(singular, merge.noise) <= singular.square() * (1 + 1e-12)).all()


@few
@given(merged(), st.floats(0, 1))
def test_elements_that_did_not_change_have_no_noise(merge: Merged, share: float) -> None:
    unchanged = torch.from_numpy(np.random.default_rng(0).random(tuple(merge.delta.shape)) < share)
    delta = merge.delta.masked_fill(unchanged, 0)
    noise = rounding_noise(merge.stored, delta)
    apart = rounding_noise(merge.stored[:, :40], delta[:, :40]), rounding_noise(merge.stored[:, 40:], delta[:, 40:])
    assert torch.allclose(noise.columns, torch.cat([part.columns for part in apart]))
    # What is left is the noise of the changed elements alone.
    assert noise.total <= merge.noise.total
    assert noise.total == pytest.approx(float(merge.error[delta != 0].square().sum()), rel=0.1, abs=1e-3)
    assert rounding_noise(merge.stored, torch.zeros_like(delta)).total == 0


@few
@given(seeds, sides, sides, st.integers(1, 16))
def test_the_noise_of_float32_is_negligible_beside_a_delta_of_a_thousandth(
    seed: int, rows: int, columns: int, rank: int
) -> None:
    weights = normal(seed, rows, columns) * 0.02
    delta = normal(seed + 1, rows, rank) @ normal(seed + 2, rank, columns) * (0.001 / rank**0.5)
    stored = weights + delta
    found = stored - weights
    noise = rounding_noise(stored, found)
    assert noise.total < 1e-9 * float(found.double().square().sum())
    singular = torch.linalg.svdvals(found.double())
    energies = signal_energies(singular, noise)
    assert int((energies > 0).sum()) == rank
    assert torch.allclose(energies[:rank], singular[:rank].square(), rtol=1e-4)


@few
@given(seeds, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), st.integers(-300, 300))
def test_zeros_subnormals_and_large_weights_have_finite_noise(seed: int, dtype: torch.dtype, power: int) -> None:
    limits = torch.finfo(dtype)
    stored = (normal(seed, 8, 8).double() * 2.0**power).clamp(limits.min, limits.max).to(dtype)
    stored[0] = 0
    noise = rounding_noise(stored, torch.ones(8, 8))
    assert noise.rows.isfinite().all()
    assert (noise.rows > 0).all()


@few
@given(merged())
def test_a_subset_of_all_is_the_same_noise_and_one_of_none_has_no_edge(merge: Merged) -> None:
    rows, columns = (torch.ones(n, dtype=torch.bool) for n in merge.delta.shape)
    whole = merge.noise.subset(rows, columns)
    assert torch.allclose(whole.rows, merge.noise.rows)
    assert torch.allclose(whole.columns, merge.noise.columns)
    assert merge.noise.subset(~rows, columns).edge == 0


@few
@given(merged(), seeds)
def test_a_subset_has_about_the_noise_of_its_elements(merge: Merged, seed: int) -> None:
    rows, columns = (torch.from_numpy(np.random.default_rng(seed).random(n) < 0.5) for n in merge.delta.shape)
    subset = merge.noise.subset(rows, columns)
    measured = float(merge.error[rows][:, columns].square().sum())
    assert subset.total == pytest.approx(measured, rel=0.15)
    assert float(subset.columns.sum()) == pytest.approx(subset.total, rel=1e-9)


def test_no_noise_leaves_singular_values_as_they_are() -> None:
    singular = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    none = Noise(torch.zeros(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(signal_energies(singular, none), singular.square())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_of_half_precision_in_float32_have_the_noise_of_half_precision(dtype: torch.dtype) -> None:
    weights = torch.randn(64, 96, generator=torch.Generator().manual_seed(3)) * 0.02
    rounded = weights.to(dtype)
    delta = rounded.float() - weights
    narrow, wide = (rounding_noise(stored, delta) for stored in (rounded, rounded.float()))
    assert torch.equal(narrow.rows, wide.rows)
    assert wide.total == pytest.approx(float(delta.double().square().sum()), rel=0.15)
