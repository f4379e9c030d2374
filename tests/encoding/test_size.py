"""Sizes as users say them: what they come to in bytes, and which strings are none."""

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dtscodec.encoding.targets import Size

amounts = st.decimals(0, 10**9, places=6, allow_nan=False, allow_infinity=False).filter(lambda x: x > 0)
counts = st.integers(0, 10**13)
POWERS = {"": 0, "B": 0, "k": 1, "kB": 1, "K": 1, "KB": 1, "M": 2, "MB": 2, "G": 3, "GB": 3, "T": 4, "TB": 4}
units = st.sampled_from(["%", "bpp", *POWERS])
spaces = st.sampled_from(["", " ", "  "])
sizes = st.builds("{:f}{}{}".format, amounts, spaces, units).map(Size.parse)


@given(amounts, spaces, counts, counts)
def test_percent_is_of_the_bytes_of_the_tensors(amount: Any, space: str, tensor_bytes: int, parameters: int) -> None:
    size = Size.parse(f"{amount:f}{space}%")
    assert size.in_bytes(tensor_bytes, parameters) == tensor_bytes * Fraction(amount) // 100


@given(amounts, spaces, counts, counts)
def test_bpp_is_bits_for_each_parameter(amount: Any, space: str, tensor_bytes: int, parameters: int) -> None:
    size = Size.parse(f"{amount:f}{space}bpp")
    assert size.in_bytes(tensor_bytes, parameters) == parameters * Fraction(amount) // 8


@given(amounts, spaces, st.sampled_from(list(POWERS)), counts, counts)
def test_units_of_bytes_are_powers_of_1000_whatever_the_fine_tune(
    amount: Any, space: str, unit: str, tensor_bytes: int, parameters: int
) -> None:
    size = Size.parse(f"{amount:f}{space}{unit}")
    assert size.in_bytes(tensor_bytes, parameters) == Fraction(amount) * 1000 ** POWERS[unit] // 1


@pytest.mark.parametrize("text", [".5%", "0.5%", "00.50%", "0.5 %"])
def test_one_amount_may_be_written_in_several_ways(text: str) -> None:
    assert Size.parse(text) == Size(Fraction(1, 200), "share")


BAD = [
    *["", " ", "%", "MB", "bpp", ".", "5.", "1,5%", "1.2.3%", "half", "NaN", "inf", "nan%"],
    *["-1", "-1%", "+1%", "1e3", "1e-3%", " 1%", "1% ", "1%\n", "0x10", "1/2", "1_000"],
    *["1MiB", "1mb", "1Bpp", "1b", "1PB", "1%%", "1% MB", "1 BPP", "1 percent"],
    *["0", "0%", "0.000bpp", "0MB"],
]


@pytest.mark.parametrize("text", BAD)
def test_a_string_that_is_no_size_above_0_raises_with_what_was_got(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {text!r}")):
        Size.parse(text)


ONE = re.compile(r"([0-9]+|[0-9]*\.[0-9]+) *(%|bpp|B|kB?|KB?|MB?|GB?|TB?|)")


@given(st.text("0123459. %bpkKMGTBe-+", max_size=8))
def test_a_string_is_a_size_if_it_is_a_number_above_0_and_a_unit(text: str) -> None:
    if ONE.fullmatch(text) and any(digit not in "0." for digit in text.rstrip("%bpkKMGTB ")):
        assert Size.parse(text).amount > 0
    else:
        with pytest.raises(ValueError, match=re.escape(f"got {text!r}")):
            Size.parse(text)


@given(st.fractions(max_value=0), st.sampled_from(["bytes", "share", "bpp"]))
def test_an_amount_that_is_not_above_0_raises(amount: Fraction, unit: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {amount} {unit}")):
        Size(amount, unit)


def test_an_unknown_unit_raises() -> None:
    with pytest.raises(ValueError, match="got 1 bits"):
        Size(Fraction(1), "bits")  # type: ignore[arg-type]


@given(st.integers(1, 999_999), st.integers(0, 4), st.sampled_from(["%", "bpp", "B"]))
def test_str_reads_back_as_the_same_size_for_up_to_six_digits(digits: int, places: int, unit: str) -> None:
    places = 0 if unit == "B" else places
    assume(digits >= 10 ** (places - 3))
    size = Size.parse(f"{digits / 10**places:.{places}f}{unit}")
    assert Size.parse(str(size)) == size


@given(sizes)
@example(Size.parse("0.5"))
@example(Size.parse("0.00001%"))
@example(Size.parse("1000000bpp"))
def test_str_of_any_parsed_size_can_be_parsed(size: Size) -> None:
    assert Size.parse(str(size)).unit == size.unit


@given(sizes)
@example(Size.parse("0.1234567%"))
def test_str_of_any_parsed_size_says_the_same_size(size: Size) -> None:
    assert Size.parse(str(size)) == size


@given(sizes, counts, counts, counts, counts)
def test_bytes_never_fall_with_a_larger_fine_tune(size: Size, bytes_: int, more: int, count: int, extra: int) -> None:
    assert size.in_bytes(bytes_, count) <= size.in_bytes(bytes_ + more, count + extra)
