"""Packed codes and bitmaps: packing and unpacking are inverses, and padding is checked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.format.blocks.coded import pack_bitmap, unpack_bitmap
from dtscodec.quantize.packing import pack_codes, padding_is_zero, unpack_codes, vector_bytes
from dtscodec.quantize.widths import ALL_BITS, Bits

widths = st.sampled_from(ALL_BITS)


def random_codes(bits: Bits, vectors: int, count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if bits == 16:
        return random.standard_normal((vectors, count)).astype(np.float16)
    if bits == 8:
        return random.integers(-128, 128, (vectors, count)).astype(np.int8)
    return random.integers(0, 1 << bits, (vectors, count)).astype(np.uint8)


@given(widths, st.integers(1, 5), st.integers(1, 200), st.integers(0, 2**31))
def test_unpacking_gives_the_packed_codes(bits: Bits, vectors: int, count: int, seed: int) -> None:
    codes = random_codes(bits, vectors, count, seed)
    packed = pack_codes(codes, bits)
    assert packed.shape == (vectors, vector_bytes(count, bits))
    assert np.array_equal(unpack_codes(packed, count, bits), codes)


@given(widths, st.integers(1, 200))
def test_a_vector_takes_whole_groups_of_16_bytes_and_no_more(bits: Bits, count: int) -> None:
    size = vector_bytes(count, bits)
    assert size % 16 == 0
    assert 0 <= size * 8 - count * bits < 128


def test_two_bit_codes_fill_a_byte_from_its_low_end() -> None:
    assert pack_codes(np.array([[3, 0, 2, 1]]), 2)[0, 0] == 0x63


def test_wider_codes_are_little_endian() -> None:
    assert pack_codes(np.array([[1, 2]]), 4)[0, 0] == 0x21
    assert pack_codes(np.array([[-1]]), 8)[0, 0] == 0xFF
    assert pack_codes(np.array([[1.0]], np.float16), 16)[0, :2].tolist() == [0x00, 0x3C]


@given(widths, st.integers(1, 70), st.integers(0, 2**31))
def test_any_set_bit_of_the_padding_is_noticed(bits: Bits, count: int, seed: int) -> None:
    packed = pack_codes(random_codes(bits, 1, count, seed), bits)
    assert padding_is_zero(packed, count, bits)
    for position in range(count * bits, packed.size * 8):
        damaged = packed.copy()
        damaged[0, position // 8] ^= 1 << position % 8
        assert not padding_is_zero(damaged, count, bits)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_unpacking_gives_the_packed_bitmap(flags: list[bool]) -> None:
    mask = np.array(flags)
    data = pack_bitmap(mask)
    assert len(data) == -(-len(flags) // 8)
    assert np.array_equal(unpack_bitmap(data, len(flags)), mask)


def test_a_bitmap_counts_from_the_low_bit() -> None:
    assert pack_bitmap(np.array([True, True, True, False, True])) == b"\x17"


def test_set_padding_bits_of_a_bitmap_are_refused() -> None:
    with pytest.raises(ValueError, match="padding"):
        unpack_bitmap(b"\x37", 5)
