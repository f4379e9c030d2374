"""What of a fit is bounded, rounded and repeatable: the gain's limit, levels as stored, the same bits again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtscodec.encoding.fitting.coordinate_descent import FittedComponents
from dtscodec.encoding.presets.recipe import LEAST_ERROR, Recipe
from dtscodec.format.streams import round_numbers
from dtscodec.linalg.devices import one_thread
from dtscodec.linalg.spectrum import leading_factors, singular_values
from dtscodec.quantize.lloyd_max import fit_levels
from dtscodec.quantize.widths import ALL_BITS, Bits
from tests.encoding.fine_tunes import power_law

few = settings(deadline=None, max_examples=20)
deltas = st.builds(
    lambda seed, rows, columns, power: power_law(np.random.default_rng(seed), rows, columns, power),
    *(st.integers(0, 2**32 - 1), st.integers(24, 80), st.integers(24, 80), st.sampled_from([0.3, 0.6, 1.0])),
)


def in_bf16(numbers: Tensor) -> Tensor:
    return torch.from_numpy(round_numbers(numbers.numpy(), "BF16")).reshape(numbers.shape)


def gain(delta: Tensor, rank: int, limit: float) -> float:
    components = FittedComponents(delta, leading_factors(delta, rank), [2] * rank, Recipe(largest_gain=limit))
    return components.gain(components.solve_scales(in_bf16), 0.0)


@few
@given(deltas, st.integers(1, 12), st.floats(1, 3))
def test_the_gain_is_at_most_the_recipes_limit_and_below_it_the_same(delta: Tensor, rank: int, limit: float) -> None:
    assert gain(delta, rank, limit) == pytest.approx(min(gain(delta, rank, float("inf")), limit))


def test_a_flat_spectrum_of_which_little_is_kept_would_have_a_gain_beyond_the_default_limit() -> None:
    delta = power_law(np.random.default_rng(0), 80, 80, 0.1)
    assert gain(delta, 2, float("inf")) > Recipe().largest_gain == gain(delta, 2, Recipe().largest_gain)


@few
@given(deltas, st.lists(st.sampled_from(ALL_BITS), min_size=1, max_size=8).filter(lambda widths: 2 in widths))
def test_what_codes_stand_for_are_levels_as_they_are_stored(delta: Tensor, some: list[Bits]) -> None:
    widths = sorted(some, reverse=True)
    components = FittedComponents(delta, leading_factors(delta, len(widths)), widths, LEAST_ERROR)
    components.solve_scales(in_bf16)
    for side in (components.u, components.v):
        assert torch.equal(side.levels, in_bf16(side.levels))
        assert torch.isin(side.plain()[widths.index(2) :], side.levels).all()


@few
@given(deltas, st.integers(1, 12))
def test_the_same_matrix_has_the_same_fit_to_the_last_bit(delta: Tensor, rank: int) -> None:
    with one_thread():
        first, again = (
            (
                *(fit_levels(matrix), singular_values(matrix), factors.u, factors.s, factors.v, factors.spectrum),
                *(fit.solve_scales(in_bf16), fit.u.plain(), fit.v.plain()),
            )
            for matrix in (delta, delta.clone())
            for factors in [leading_factors(matrix, rank)]
            for fit in [FittedComponents(matrix, factors, [2] * rank, Recipe())]
        )
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_levels_of_another_number_than_four_must_be_fitted() -> None:
    assert Recipe(levels=8, fitted_levels=True).levels == 8
    with pytest.raises(ValueError, match="8 levels"):
        Recipe(levels=8, fitted_levels=False)
