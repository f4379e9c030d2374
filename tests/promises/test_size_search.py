"""The search for the smallest size: near the true one, with few fitted packs, inside its bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.errors import SizeError
from dtscodec.promises.size_search import AIM, SizeSearch

WHOLE = 270_000_000


class Packs:
    """Ratios that fall as a power of the size, lower by a gain after a fit; each is counted."""

    def __init__(self, right: float, slope: float, gain: float, bend: float = 0.0, least: int = 1) -> None:
        self.right, self.slope, self.gain, self.bend, self.least = right, slope, gain, bend, least
        self.plain_sizes: list[int] = []
        self.fitted_sizes: list[int] = []

    def plain(self, size: int) -> float:
        self.plain_sizes.append(size)
        # The gain changes slowly with the size.
        return self.ratio(size) * self.gain * math.pow(size / self.right, 0.1)

    def fitted(self, size: int) -> float:
        self.fitted_sizes.append(size)
        return self.ratio(size)

    def ratio(self, size: int) -> float:
        if size < self.least:
            raise SizeError(f"size: expected {self.least}", None, self.least)
        step = math.log(size / self.right)
        return math.exp(self.slope * step + self.bend * step * abs(step) * self.slope)

    def search(self, start: int = 1_300_000, most: int = WHOLE) -> tuple[int, float]:
        return SizeSearch(start, most, -1.0, 2.5).run(self.plain, self.fitted, {})


@given(st.floats(3e5, 2e7), st.floats(-1.4, -0.3), st.floats(1.2, 6), st.floats(0, 0.1))
def test_it_ends_near_the_smallest_size_after_few_fits(right: float, slope: float, gain: float, bend: float) -> None:
    packs = Packs(right, slope, gain, bend)
    size, ratio = packs.search()
    assert ratio <= 1
    # What is closer than 0.94 of the bound, or than 4 % in size to one that fails, is not worth another fit.
    assert size <= 1.25 * right
    assert len(packs.fitted_sizes) <= 5
    assert len(packs.plain_sizes) <= 4


def test_three_fits_suffice_for_an_ordinary_curve() -> None:
    packs = Packs(2_000_000, -0.9, 2.6)
    size, ratio = packs.search()
    assert 0.94 <= ratio <= 1
    assert len(packs.fitted_sizes) <= 3
    assert size / 2_000_000 <= 1.1


def test_no_pack_is_larger_than_the_largest_size() -> None:
    packs = Packs(9_000_000, -1, 2)
    size, ratio = packs.search(most=2_000_000)
    assert size == max(packs.plain_sizes + packs.fitted_sizes) == 2_000_000
    assert ratio > 1


def test_the_smallest_pack_that_there_is_may_hold() -> None:
    packs = Packs(100_000, -1, 2, least=400_000)
    assert packs.search() == (400_000, packs.ratio(400_000))
    # One fit is enough: nothing smaller exists.
    assert packs.fitted_sizes.count(400_000) == 1
    assert len(packs.fitted_sizes) <= 2


def test_a_smallest_pack_above_the_largest_size_is_an_error() -> None:
    with pytest.raises(SizeError):
        Packs(100_000, -1, 2, least=400_000).search(start=200_000, most=200_000)


def test_packs_that_are_exact_end_the_search() -> None:
    search = SizeSearch(1_300_000, WHOLE, -1.0, 2.5, least=900_000)
    assert search.run(lambda size: 0.0, lambda size: 0.0, {}) == (900_000, 0.0)


def test_a_second_search_begins_where_the_first_ended() -> None:
    packs = Packs(2_000_000, -0.9, 2.6)
    size, _ = packs.search()
    known = {one: 1.2 * packs.ratio(one) for one in packs.fitted_sizes}
    fits = len(packs.fitted_sizes)
    larger, again = SizeSearch(1_300_000, WHOLE, -1.0, 2.5).run(
        packs.plain, lambda size: 1.2 * packs.fitted(size), known
    )
    assert larger > size
    assert again <= 1
    assert len(packs.fitted_sizes) - fits <= 2
    assert AIM < 1
