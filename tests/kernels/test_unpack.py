"""Packed blocks in memory: their values are those of the pack, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dtscodec.kernels import unpack
from dtscodec.kernels.packed import Store
from dtscodec.kernels.unpack import unpack_factors, unpack_left_rows, unpack_values
from dtscodec.quantize.widths import ALL_BITS, Bits
from tests.kernels.strategies import Case, cases, low_rank, packed_values


@given(cases())
@settings(deadline=None)
def test_unpacked_factors_are_those_that_numpy_makes_of_the_streams(case: Case) -> None:
    coded = case.block.split(case.columns, case.streams).delta()
    assert coded.right is not None
    left, right = unpack_factors(case.packed())
    assert np.array_equal(left.numpy().T, coded.left)
    assert np.array_equal(right.numpy(), coded.right)


@given(cases())
@settings(deadline=None)
def test_unpacking_without_numpy_gives_the_same_bits(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = unpack_factors(case.packed())
        patch.setattr(unpack, "_by_bytes", lambda device: False)
        left, right = unpack_factors(case.packed())
    assert torch.equal(left, expected[0])
    assert torch.equal(right, expected[1])


@given(cases())
@settings(deadline=None)
def test_some_rows_of_u_are_those_of_all(case: Case) -> None:
    factors = case.packed()
    rows = torch.arange(factors.coded_shape[0] - 1, -1, -2)
    left, right = unpack_left_rows(factors, rows, torch.float32)
    whole = unpack_factors(factors)
    assert torch.equal(left, whole[0][:, rows])
    assert torch.equal(right, whole[1])


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("subset", [{}, {"rows": 3}, {"cols": 5}, {"rows": 3, "cols": 5}], ids=str)
@pytest.mark.parametrize("per_row", [False, True])
def test_values_are_those_that_numpy_makes_of_the_streams(bits: Bits, subset: dict[str, int], per_row: bool) -> None:
    packed, expected = packed_values(7, 9, bits, per_row=per_row and bits in (4, 8), **subset)
    whole = np.zeros((7, 9), np.float32)
    whole[packed.where()] = unpack_values(packed).numpy()
    assert np.array_equal(whole, expected)


def test_blocks_of_one_store_do_not_touch_each_other() -> None:
    made = [low_rank(30, 50, ((3, 2), (1, 8)), rows=7, seed=seed) for seed in range(4)]
    store = Store([(case.block, case.columns) for case in made], torch.device("cpu"))
    packed = [store.add_factors(case.block.split(case.columns, case.streams)) for case in made]
    for case, one in zip(made, packed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(unpack_factors(one), unpack_factors(case.packed()), strict=True))
