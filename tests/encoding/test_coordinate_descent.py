"""Refits of quantized factors: they lower the error, their scales are of least squares, the gain is bounded."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtscodec.encoding.fitting.coordinate_descent import FittedComponents, balanced
from dtscodec.encoding.presets.recipe import BEST, LEAST_ERROR, Recipe
from dtscodec.format.blocks import BandFactors
from dtscodec.format.streams import round_numbers
from dtscodec.linalg.spectrum import leading_factors
from dtscodec.quantize.scalar import dequantize
from dtscodec.quantize.widths import ALL_BITS, Bits

few = settings(deadline=None, max_examples=25)
RECIPES = LEAST_ERROR, replace(BEST, gain_power=None)
"""Fitted levels, and those of the published four groups."""


def in_bf16(numbers: Tensor) -> Tensor:
    return torch.from_numpy(round_numbers(numbers.numpy(), "BF16")).reshape(numbers.shape)


def power_law(seed: int, rows: int, columns: int, power: float) -> Tensor:
    """A full-rank matrix of unit norm whose singular values fall by a power law."""
    rng, side = np.random.default_rng(seed), min(rows, columns)
    u, v = (torch.linalg.qr(torch.from_numpy(rng.normal(size=(n, side))))[0] for n in (rows, columns))
    singular = torch.arange(1, side + 1, dtype=torch.float64) ** -power
    matrix: Tensor = (u * (singular / singular.norm())) @ v.T
    return matrix.float()


seeds = st.integers(0, 2**32 - 1)
powers = st.sampled_from([0.3, 0.5, 0.8, 1.2])
deltas = st.builds(power_law, seeds, st.integers(24, 96), st.integers(24, 96), powers)
small = st.builds(power_law, seeds, st.integers(8, 24), st.integers(8, 24), powers)


@st.composite
def descending(draw: st.DrawFn, most: int = 12) -> list[Bits]:
    """Widths of some components."""
    return sorted(draw(st.lists(st.sampled_from(ALL_BITS), min_size=1, max_size=most)), reverse=True)


def refined(delta: Tensor, widths: Sequence[Bits], recipe: Recipe = LEAST_ERROR) -> tuple[FittedComponents, Tensor]:
    """Quantized components, and their scales."""
    components = FittedComponents(delta, leading_factors(delta, len(widths)), widths, recipe)
    return components, components.solve_scales(in_bf16)


def decoded(bands: list[BandFactors]) -> Tensor:
    """What a pack's decoder makes of the bands."""
    total: np.ndarray = np.zeros((bands[0].u.count, bands[0].v.count))
    for band in bands:
        u, v = dequantize(band.u).astype(np.float64), dequantize(band.v).astype(np.float64)
        total += (u * band.scales[:, None] if len(band.scales) else u).T @ v
    return torch.from_numpy(total)


def error(delta: Tensor, widths: Sequence[Bits], recipe: Recipe = LEAST_ERROR) -> float:
    components, scales = refined(delta, widths, recipe)
    return float((delta.double() - decoded(components.bands(scales))).square().sum())


@few
@given(deltas, st.integers(4, 16), st.sampled_from(RECIPES))
def test_five_rounds_lower_the_error_of_several_components(delta: Tensor, rank: int, recipe: Recipe) -> None:
    assert error(delta, [2] * rank, recipe) < error(delta, [2] * rank, replace(recipe, rounds=0))


@few
@given(deltas, descending(), st.sampled_from(RECIPES))
def test_the_error_is_never_above_the_norm_of_the_delta(delta: Tensor, widths: list[Bits], recipe: Recipe) -> None:
    assert error(delta, widths, recipe) <= float(delta.double().square().sum()) * (1 + 1e-6)


@few
@given(deltas, descending())
def test_the_error_is_never_below_that_of_the_best_matrix_of_the_rank(delta: Tensor, widths: list[Bits]) -> None:
    tail = torch.linalg.svdvals(delta.double())[len(widths) :].square().sum()
    assert error(delta, widths) >= float(tail) * (1 - 1e-6)


@few
@given(deltas, descending(), st.sampled_from(RECIPES), st.sampled_from([1e-3, 1e-2, 0.1, 1.0]))
def test_no_change_of_one_scale_lowers_the_error(delta: Tensor, widths: list[Bits], recipe: Recipe, by: float) -> None:
    components, scales = refined(delta, widths, recipe)
    u, v = components.u.plain().double(), components.v.plain().double()

    def square_error(of: Tensor) -> float:
        return float((delta.double() - (u.T * of) @ v).square().sum())

    least = square_error(scales.double())
    for k in range(len(widths)):
        for factor in (1 + by, 1 - by):
            changed = scales.double()
            changed[k] *= factor
            assert square_error(changed) >= least - 1e-9


@few
@given(deltas, descending())
def test_what_least_squares_leaves_is_orthogonal_to_what_it_takes(delta: Tensor, widths: list[Bits]) -> None:
    components, scales = refined(delta, widths)
    taken = (components.u.plain().double().T * scales) @ components.v.plain().double()
    # Ridge and float32 hold it to about a millionth.
    assert float((taken * (delta.double() - taken)).sum()) == pytest.approx(0, abs=1e-4)


@few
@given(deltas, descending(), st.sampled_from([0.0, 1.0, 2.0, 4.0]), st.sampled_from([0.0, 0.01, 0.1]))
def test_the_gain_is_at_least_1_and_makes_no_delta_larger_than_the_true_one(
    delta: Tensor, widths: list[Bits], power: float, floor: float
) -> None:
    components, scales = refined(delta, widths, replace(LEAST_ERROR, gain_power=power))
    gain = components.gain(scales, floor)
    assert gain >= 1
    if gain > 1:
        singular = torch.linalg.svdvals(delta.double())
        true = float(singular[singular > floor].norm())
        # Vectors of 16 bits are rounded to float16 after.
        assert float(decoded(components.bands(scales * gain)).norm()) <= true * (1 + 1e-3)


@few
@given(small, st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_the_gain_gives_the_decoded_delta_the_effect_of_the_true_one_unless_capped(delta: Tensor, power: float) -> None:
    rank = min(delta.shape)
    components, scales = refined(delta, [2] * rank, replace(LEAST_ERROR, gain_power=power))
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    gradient = (u * (s / s[0]).pow(power)) @ v
    plain = decoded(components.bands(scales))
    wanted = float((gradient * delta.double()).sum() / (gradient * plain).sum())
    cap = float(s.norm() / plain.norm())
    assert components.gain(scales, 0.0) == pytest.approx(max(1, min(wanted, cap)), rel=1e-4)


def test_the_gain_in_full_is_below_its_cap_where_strong_directions_count_most() -> None:
    delta = power_law(0, 64, 64, 0.8)
    components, scales = refined(delta, [2] * 64, replace(LEAST_ERROR, gain_power=4.0))
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    gradient = (u * (s / s[0]).pow(4)) @ v
    gain = components.gain(scales, 0.0)
    scaled = decoded(components.bands(scales * gain))
    assert gain > 1.001
    assert float(scaled.norm()) < float(s.norm()) * 0.999
    assert float((gradient * scaled).sum()) == pytest.approx(float((gradient * delta).sum()), rel=1e-4)


@few
@given(deltas, st.integers(1, 12))
def test_components_that_all_point_away_have_no_gain(delta: Tensor, rank: int) -> None:
    components, scales = refined(delta, [2] * rank, BEST)
    assert components.gain(-scales, 0.0) == 1


@few
@given(deltas, descending())
def test_bands_are_of_descending_width_and_their_components_of_descending_strength(
    delta: Tensor, widths: list[Bits]
) -> None:
    components, scales = refined(delta, widths)
    bands = components.bands(scales)
    assert [band.u.bits for band in bands] == sorted(set(widths), reverse=True)
    assert [len(band.u) for band in bands] == [widths.count(band.u.bits) for band in bands]
    for band in bands:
        norms = np.linalg.norm(dequantize(band.u), axis=1) * np.linalg.norm(dequantize(band.v), axis=1)
        strengths = norms * np.abs(band.scales) if len(band.scales) else norms
        assert (np.diff(strengths) <= strengths[:-1] * 1e-3).all()


@few
@given(deltas, descending())
def test_bands_decode_to_scaled_components(delta: Tensor, widths: list[Bits]) -> None:
    components, scales = refined(delta, widths)
    whole = (components.u.plain().double().T * scales) @ components.v.plain().double()
    # 2^-11 of each factor's elements where they are stored as float16.
    assert torch.allclose(decoded(components.bands(scales)), whole, rtol=2e-3, atol=1e-4)


@few
@given(deltas, st.integers(1, 3))
def test_more_bits_for_the_strongest_components_lower_the_error(delta: Tensor, each: int) -> None:
    widths: list[Bits] = [16, 8, 4, 2]
    mixed = [bits for bits in widths for _ in range(each)]
    assert error(delta, mixed) < error(delta, [2] * len(mixed))


@few
@given(deltas, st.integers(1, 8))
def test_sixteen_bits_have_the_error_of_the_truncated_svd(delta: Tensor, rank: int) -> None:
    tail = float(torch.linalg.svdvals(delta.double())[rank:].square().sum())
    assert error(delta, [16] * rank) == pytest.approx(tail, rel=1e-4, abs=1e-5)


@few
@given(deltas, st.integers(1, 8), st.sampled_from([2.0**-20, 2.0**-4, 2.0**10]))
def test_a_factor_passes_through(delta: Tensor, rank: int, factor: float) -> None:
    # Powers of two change no rounding; only where values are tiny does anything else.
    expected = error(delta, [2] * rank) * factor**2
    assert error(delta * factor, [2] * rank) == pytest.approx(expected, rel=1e-2)


@few
@given(deltas, st.integers(1, 6), st.floats(-1e4, 1e4).filter(lambda x: abs(x) > 1e-4))
def test_balanced_factors_multiply_to_the_scales_and_give_elements_of_one_size(
    delta: Tensor, rank: int, scale: float
) -> None:
    u, v = delta[:rank, :20] * 1e3, delta[:rank, 4:20] * 1e-3
    scales = torch.full((rank,), scale)
    of_u, of_v = balanced(u, v, scales)
    assert torch.allclose(of_u * of_v, scales, rtol=1e-4)
    sizes = [(vectors * factors[:, None]).square().mean(1).sqrt() for vectors, factors in ((u, of_u), (v, of_v))]
    assert torch.allclose(sizes[0], sizes[1], rtol=1e-3)


def test_a_zero_delta_decodes_to_zero() -> None:
    components, scales = refined(torch.zeros(8, 6), [8, 4, 2])
    bands = components.bands(scales)
    assert decoded(bands).abs().max() == 0
    assert all(math.isfinite(scale) for band in bands for scale in band.scales)
