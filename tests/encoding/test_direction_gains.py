"""Gains of components: each singular direction of the delta gets its effect back, and no delta becomes too large."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtscodec.encoding.fitting.coordinate_descent import FittedComponents
from dtscodec.encoding.fitting.direction_gains import LARGEST_MISSING, direction_gains
from dtscodec.encoding.presets.recipe import BEST
from dtscodec.linalg.spectrum import Factors, leading_factors
from tests.encoding.fine_tunes import power_law

few = settings(deadline=None, max_examples=20)
powers = st.sampled_from([0.3, 0.6, 1.0])


def delta_of(power: float, seed: int = 0) -> Tensor:
    return power_law(np.random.default_rng(seed), 96, 64, power)


def fitted(delta: Tensor, rank: int) -> tuple[FittedComponents, Tensor]:
    components = FittedComponents(delta, leading_factors(delta, rank), [2] * rank, BEST)
    return components, components.solve_scales(lambda numbers: numbers)


def decoded(components: FittedComponents, scales: Tensor) -> Tensor:
    return (components.u.plain().T * scales) @ components.v.plain()


def along(delta: Tensor, found: Tensor, count: int) -> Tensor:
    """Return the share of each of the strongest directions of a delta that another matrix has."""
    u, s, v = torch.linalg.svd(delta, full_matrices=False)
    shares: Tensor = (u.T @ found @ v.T).diagonal() / s
    return shares[:count]


@pytest.mark.parametrize("power", [0.3, 0.6, 1.0])
def test_strong_and_weak_directions_both_get_about_their_own_effect(power: float) -> None:
    delta = delta_of(power)
    components, scales = fitted(delta, 48)
    plain = along(delta, decoded(components, scales), 48)
    restored = along(delta, decoded(components, scales * components.gains(scales, 0.0)), 48)
    assert (restored - 1).abs().mean() < (plain - 1).abs().mean()
    assert float(restored[:4].mean()) == pytest.approx(1, abs=0.15)
    assert float(restored[24:].mean()) == pytest.approx(1, abs=0.3)


@few
@given(powers, st.integers(1, 60), st.integers(0, 99))
def test_gains_are_at_least_1_and_limited(power: float, rank: int, seed: int) -> None:
    components, scales = fitted(delta_of(power, seed), rank)
    gains = components.gains(scales, 0.0)
    assert ((gains >= 1) & (gains <= BEST.largest_gain * LARGEST_MISSING + 1e-6)).all()


def test_without_gains_of_directions_all_components_have_one_gain() -> None:
    components, scales = fitted(delta_of(0.6), 12)
    components._recipe = replace(BEST, direction_gains=False)
    assert torch.equal(components.gains(scales, 0.0), torch.full((12,), components.gain(scales, 0.0)))
    components._recipe = replace(BEST, gain_power=None)
    assert torch.equal(components.gains(scales, 0.0), torch.ones(12))


def factors(spectrum: Tensor, rank: int) -> Factors:
    return Factors(torch.empty(9, rank), spectrum[:rank], torch.empty(rank, 9), spectrum)


def test_a_delta_whose_directions_are_all_there_has_no_gain() -> None:
    whole = factors(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0, 0.0]), 3)
    assert torch.equal(
        direction_gains(whole, torch.ones(3, dtype=torch.float64), 1.5, 0.0, 1.5), torch.ones(3).double()
    )


def test_what_lies_in_the_bulk_adds_little_and_what_stands_out_of_it_the_whole_gain() -> None:
    ones = torch.ones(2, dtype=torch.float64)
    bulk = factors(torch.tensor([10.0, 9.0, *[1.0] * 100]), 2)
    assert float(direction_gains(bulk, ones, 1.5, 0.0, 1.5).max()) < 1.05
    signal = factors(torch.tensor([10.0, 9.0, 8.0, 7.0, 6.0, *[1.0] * 100]), 2)
    assert float(direction_gains(signal, ones, 1.5, 0.0, 1.5).min()) == 1.5


def test_a_direction_of_little_overlap_has_a_limited_gain() -> None:
    whole = factors(torch.tensor([3.0, 2.0]), 2)
    found = direction_gains(whole, torch.tensor([0.01, -1.0], dtype=torch.float64), 1.0, 0.0, 1.5)
    assert found.tolist() == [1.5, 1.5]
    flat = factors(torch.ones(50), 2)
    assert float(direction_gains(flat, torch.ones(2, dtype=torch.float64), 1.0, 0.0, 1.5).max()) == LARGEST_MISSING


@few
@given(st.integers(1, 4), st.integers(0, 99))
def test_components_beyond_the_rank_of_a_delta_do_not_enlarge_it(rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(96, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
    components, scales = fitted(delta, 2 * rank + 4)
    found = decoded(components, scales * components.gains(scales, 1e-3 * float(delta.norm())))
    assert float((found * delta).sum() / delta.square().sum()) == pytest.approx(1, abs=0.05)
