"""zstd frames and byte planes: inverses, within limits, and damage is noticed."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.format.primitives.byte_planes import CHUNK_BYTES, join_planes, plane_sizes, split_planes
from dtscodec.format.primitives.zstd_frames import compress, decompress, frame_sizes


@given(st.binary(max_size=1000), st.binary(max_size=50))
def test_decompressing_gives_the_content_and_the_length_of_the_frame(content: bytes, rest: bytes) -> None:
    frame = compress(content, 3)
    assert decompress(frame + rest, 1000) == (content, len(frame))


@given(st.binary(max_size=300), st.binary(min_size=8, max_size=300), st.binary(max_size=20), st.integers(1, 19))
def test_decompressing_with_the_same_prefix_gives_the_content(a: bytes, prefix: bytes, b: bytes, level: int) -> None:
    content = a + prefix + b
    frame = compress(content, level, prefix)
    assert decompress(frame + b, len(content), prefix) == (content, len(frame))
    assert frame_sizes(frame + b, len(content)) == (len(content), len(frame))


def test_a_prefix_is_raw_content_whatever_it_begins_with() -> None:
    prefix = b"\x37\xa4\x30\xec" + np.random.default_rng(0).bytes(1000)
    frame = compress(prefix + b"x", 9, prefix)
    assert len(frame) < 40
    assert zstandard.get_frame_parameters(frame).dict_id == 0
    assert decompress(frame, 2000, prefix)[0] == prefix + b"x"


def test_all_of_a_large_prefix_is_in_reach() -> None:
    prefix = np.random.default_rng(0).bytes(8 * 2**20)
    content = prefix[:1000] + b"inserted" + prefix[1000:]
    frame = compress(content, 9, prefix)
    assert len(frame) < 10_000
    assert decompress(frame, len(content), prefix)[0] == content


def test_a_frame_of_more_content_than_its_blocks_can_have_is_refused_from_its_headers() -> None:
    # One segment, a content size of 4 bytes, and a last block that repeats a byte.
    frame = b"\x28\xb5\x2f\xfd\xa0" + (10**8).to_bytes(4, "little") + (100 << 3 | 3).to_bytes(3, "little") + b"x"
    with pytest.raises(ValueError, match="1 blocks"):
        frame_sizes(frame, 2**30)


def test_a_frame_with_a_checksum_knows_its_length() -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"abc" * 9)
    assert decompress(frame + b"tail", 100) == (b"abc" * 9, len(frame))


def test_a_frame_that_states_more_than_the_limit_is_refused() -> None:
    with pytest.raises(OverflowError):
        decompress(compress(bytes(1001), 3), 1000)


def test_a_frame_of_another_size_than_it_states_is_refused() -> None:
    frame = bytearray(compress(bytes(10**7), 3))
    parameters = zstandard.get_frame_parameters(bytes(frame))
    at = bytes(frame).index(parameters.content_size.to_bytes(4, "little"))
    frame[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(ValueError, match="zstd frame"):
        decompress(bytes(frame), 1000)


def test_a_frame_without_content_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"abc")
    with pytest.raises(ValueError, match="states its content size"):
        decompress(frame, 100)


@given(st.integers(0, 200))
def test_a_frame_cut_short_is_refused(length: int) -> None:
    frame = compress(np.random.default_rng(0).bytes(150), 3)
    with pytest.raises(ValueError, match="zstd frame"):
        decompress(frame[: min(length, len(frame) - 1)], 1000)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 300), st.integers(0, 2**31), st.booleans())
def test_planes_join_to_the_bytes_they_were_split_from(planes: int, count: int, seed: int, dull: bool) -> None:
    data = np.frombuffer(np.random.default_rng(seed).bytes(count * planes), np.uint8) // (64 if dull else 1)
    stored, lengths = split_planes(data, planes)
    if lengths is None:
        assert stored == data.tobytes()
    else:
        assert len(stored) == sum(lengths) < data.size
        assert np.array_equal(join_planes(stored, lengths, data.size, planes), data)


def test_planes_of_several_chunks_join_again() -> None:
    random = np.random.default_rng(1)
    weights = (random.standard_normal(CHUNK_BYTES // 4 + 999) * 0.02).astype(np.float32).view(np.uint8)
    stored, lengths = split_planes(weights, 4)
    assert lengths is not None
    assert len(lengths) == 8 == len(plane_sizes(weights.size, 4))
    assert np.array_equal(join_planes(stored, lengths, weights.size, 4), weights)


def test_a_plane_with_a_frame_of_another_length_is_refused() -> None:
    frame = compress(bytes(999), 3)
    with pytest.raises(ValueError, match="frame"):
        join_planes(frame, [len(frame)], 1000, 1)
    with pytest.raises(ValueError, match="zstd"):
        join_planes(b"garbage", [7], 1000, 1)
    with pytest.raises(ValueError, match="at most"):
        join_planes(compress(bytes(10**6), 3), [len(compress(bytes(10**6), 3))], 1000, 1)


def test_exponents_of_weights_take_their_entropy_and_what_repeats_takes_next_to_nothing() -> None:
    generator = np.random.default_rng(0)
    weights = (generator.standard_normal(2**18) * 0.02).astype(np.float32).view(np.uint8)
    shares = np.bincount(weights.reshape(-1, 4)[:, 3], minlength=256) / 2**18
    entropy = -float(np.sum(shares[shares > 0] * np.log2(shares[shares > 0]))) / 8
    _, lengths = split_planes(weights, 4)
    assert lengths is not None
    assert lengths[3] < (entropy + 0.01) * 2**18
    stored, _ = split_planes(np.tile(weights[:4096], 256), 4)
    assert len(stored) < 0.02 * 2**20
