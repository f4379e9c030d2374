"""Dithered rounding to bfloat16, and that it agrees with the spec's decoder."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.quantize.dither import PERIOD, round_dithered, thresholds
from tests.support import spec_stages

ROWS, COLUMNS = 3 * PERIOD + 5, 200


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Rounded as all rows and columns of a block."""
    places = (np.arange(values.shape[0]), np.arange(values.shape[1]))
    return torch.from_numpy(round_dithered(values.numpy(), *places, values.shape[1]))


def test_what_bfloat16_holds_stays_as_it_is() -> None:
    held = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    held[0, :4] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    assert torch.equal(rounded(held).view(torch.int32), held.view(torch.int32))


@given(st.floats(-3.0, 3.0))
def test_on_average_a_small_delta_is_kept(units: float) -> None:
    unit = 2.0**-7  # Of bfloat16, in the last place of numbers from 1 to 2.
    moved = rounded(torch.full((ROWS, COLUMNS), 1.5 + units * unit)) - 1.5
    assert abs(float(moved.mean()) / unit - units) < 0.02
    assert float((moved - units * unit).abs().max()) < unit


def test_thresholds_are_those_of_the_spec() -> None:
    expected = spec_stages.thresholds(*np.ogrid[: 2 * PERIOD, :1000])
    assert np.array_equal(np.tile(thresholds(1000), (2, 1)), expected)
    assert abs(thresholds(1000).mean() / 2**16 - 0.5) < 0.01


def test_nan_stays_nan() -> None:
    bits = torch.tensor([[0x7FFFFFFF, -1, 0x7FC00000]], dtype=torch.int32)
    assert rounded(bits.view(torch.float32)).isnan().all()
