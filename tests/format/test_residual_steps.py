"""The steps of residual layers: each is the inverse of another, and the spec's decoder agrees (section 15)."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.format.blocks import BaseRows, CodedDelta, Same
from dtscodec.format.dtypes import DType, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.primitives.zstd_frames import compress_parts, decompress
from dtscodec.format.residual.bucket_code import SHARED, BucketCode, join_bucket, read_symbols, split_bucket
from dtscodec.format.residual.buckets import join_buckets, most_bytes, split_buckets
from dtscodec.format.residual.chunk import decode_chunk, encode_chunk
from dtscodec.format.residual.content import Content
from dtscodec.format.residual.contexts import CONTEXTS, measure_scales
from dtscodec.format.residual.exact_tensor import as_elements, chunk_ranges
from dtscodec.format.residual.integers import ElementKind, element_kind, exponents, from_distances, to_distances
from dtscodec.format.residual.prediction import ExactDelta, Factors, Prediction
from tests.format.residual_strategies import DTYPE_OF, KINDS, bits_of_kind, near, seeds
from tests.support import spec_decoder, spec_residual

# Distances and contexts


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(random=seeds)
def test_distances_turn_predictions_into_elements(kind: ElementKind, random: np.random.Generator) -> None:
    elements, prediction = bits_of_kind(random, kind, 50), bits_of_kind(random, kind, 50)
    distances = to_distances(elements, prediction, kind)
    assert from_distances(distances, prediction, kind).tobytes() == elements.tobytes()
    assert not to_distances(elements, elements, kind).any()


@pytest.mark.parametrize("dtype", ["F16", "F32", "F64"])
@given(random=seeds)
def test_a_distance_of_floats_is_the_number_of_floats_between(dtype: DType, random: np.random.Generator) -> None:
    kind = element_kind(dtype)
    start = bits_of_kind(random, kind, 50)
    numbers = start.view(f"<f{kind.size}")
    numbers = np.where(np.isfinite(numbers), numbers, np.ones_like(numbers))
    with np.errstate(over="ignore"):  # infinity follows the largest number
        away = np.nextafter(numbers, np.copysign(np.inf, numbers).astype(numbers.dtype))
    toward = np.nextafter(numbers, np.zeros_like(numbers))
    some = numbers != 0  # zeros have two neighbours, and -0 is one
    assert (to_distances(away.view(kind.signed), numbers.view(kind.signed), kind)[some] == 2).all()
    assert (to_distances(toward.view(kind.signed), numbers.view(kind.signed), kind)[some] == 1).all()


@given(st.sampled_from(KINDS), seeds, st.integers(1, 40), st.integers(1, 40))
def test_rows_and_columns_without_distances_are_not_coded(
    kind: ElementKind, random: np.random.Generator, rows: int, columns: int
) -> None:
    prediction = bits_of_kind(random, kind, rows, columns)
    distances = random.integers(0, 9, (rows, columns)).astype(kind.unsigned)
    distances[random.random(rows) < 0.3] = 0
    distances[:, random.random(columns) < 0.3] = 0
    distances[0, 0] = 1
    scales = measure_scales(distances, exponents(prediction, kind))
    coded_rows, coded_columns = (np.arange(n)[part] for n, part in zip((rows, columns), scales.coded(), strict=True))
    left = distances.copy()
    left[np.ix_(coded_rows, coded_columns)] = 0
    assert not left.any()
    # Rows and columns of many elements only have a scale each.
    if columns >= 16:
        assert (distances[coded_rows].any(axis=1)).all()
    assert scales.contexts(exponents(prediction, kind)).max() < CONTEXTS


# Codes


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@given(random=seeds, count=st.integers(1, 40))
def test_each_code_stores_integers_of_each_size(size: int, random: np.random.Generator, count: int) -> None:
    dtype = np.dtype(f"<u{size}")
    for low in range(0, 8 * size, 4):
        for shared in SHARED:
            code = BucketCode(low, shared)
            distances = np.frombuffer(random.bytes(size * count), dtype) >> random.integers(0, 8 * size, count, dtype)
            lows, symbols, excess = split_bucket(distances, code)
            assert (len(lows), len(symbols)) == (code.low_bytes(count), code.shared_bytes(count))
            found = read_symbols(np.frombuffer(symbols, np.uint8), count, code)
            assert np.array_equal(join_bucket(np.frombuffer(lows, np.uint8), found, excess, code), distances)


def test_a_code_is_a_byte() -> None:
    found = {}
    for value in range(256):
        if value < 64 and value % 4 < 3:
            found[BucketCode.from_byte(value)] = value
        else:
            with pytest.raises(ValueError, match="expected"):
                BucketCode.from_byte(value)
    assert all(code.to_byte() == value for code, value in found.items())
    assert len(found) == 48


@given(st.sampled_from([1, 2, 4, 8]), seeds, st.integers(1, 300))
def test_buckets_are_read_as_they_were_written(size: int, random: np.random.Generator, count: int) -> None:
    dtype = np.dtype(f"<u{size}")
    distances = np.frombuffer(random.bytes(size * count), dtype) >> random.integers(0, 8 * size, count, dtype)
    contexts = random.integers(0, CONTEXTS, count).astype(np.uint8) // random.integers(1, 128)
    parts = split_buckets(distances, contexts)
    assert sum(map(len, parts)) <= most_bytes(count, size)
    content = Content(compress_parts(parts), most_bytes(count, size))
    assert np.array_equal(join_buckets(content, contexts, dtype), distances)
    content.end()
    theirs = spec_residual.Content(b"".join(parts))
    assert np.array_equal(theirs.integers(contexts.astype(np.int64), size), distances)


# Exact products


@given(seeds, st.integers(1, 40), st.integers(1, 30), st.integers(1, 30))
def test_exact_products_do_not_depend_on_the_order_of_sums(
    random: np.random.Generator, rank: int, rows: int, columns: int
) -> None:
    spread = np.exp2(random.integers(-40, 40, rank))
    left, right = random.standard_normal((rows, rank)) * spread, random.standard_normal((rank, columns))
    left[random.random(left.shape) < 0.2] = 0
    delta = ExactDelta(CodedDelta(None, None, left, right), (rows, columns))
    expected = delta.rows(0, rows)
    assert spec_residual.exact_product(left.T, right).tobytes() == expected.tobytes()
    order = random.permutation(rank)
    shuffled = ExactDelta(CodedDelta(None, None, left[:, order], right[order]), (rows, columns))
    assert shuffled.rows(0, rows).tobytes() == expected.tobytes()
    # Row by row, and by another library.
    assert b"".join(delta.rows(i, i + 1).tobytes() for i in range(rows)) == expected.tobytes()
    whole = [torch.from_numpy(np.ascontiguousarray(part)) for part in (delta._left, delta._right)]
    product = np.ldexp((whole[0] @ whole[1]).numpy() + 0.0, delta._exponent)
    assert product.tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_exact_products_do_not_depend_on_threads(threads: int) -> None:
    random = np.random.default_rng(0)
    left, right = random.standard_normal((200, 300)).astype(np.float32), random.standard_normal((300, 250))
    delta = ExactDelta(CodedDelta(None, None, left, right), (200, 250))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = [torch.from_numpy(np.ascontiguousarray(part)) for part in (delta._left, delta._right)]
        product = np.ldexp((whole[0] @ whole[1]).numpy() + 0.0, delta._exponent)
    finally:
        torch.set_num_threads(before)
    assert product.tobytes() == delta.rows(0, 200).tobytes()
    exact = left.astype(np.float64) @ right
    assert np.allclose(delta.rows(0, 200), exact, rtol=0, atol=1e-3)


# Chunks


@given(
    st.sampled_from(KINDS), seeds, st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.01, 0.1, 0.9, 1.0])
)
def test_a_chunk_decodes_to_its_elements(
    kind: ElementKind, random: np.random.Generator, rows: int, columns: int, share: float
) -> None:
    prediction = bits_of_kind(random, kind, rows, columns)
    elements = near(random, prediction, share) if random.random() < 0.8 else bits_of_kind(random, kind, rows, columns)
    elements[random.random(rows) < 0.2] = prediction[0, 0] if share == 1 else 0
    data = encode_chunk(elements, prediction, kind)
    assert (data == b"") == np.array_equal(elements, prediction)
    found = decode_chunk(data, lambda factors: prediction, (rows, columns), kind)
    assert found.tobytes() == elements.tobytes()
    theirs = spec_residual.decode_chunk(data, lambda a, t: prediction, (rows, columns), DTYPE_OF[kind])
    assert theirs.tobytes() == elements.tobytes()


@given(st.sampled_from(KINDS), seeds, st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_chunk_is_refused_or_gives_other_elements(
    kind: ElementKind, random: np.random.Generator, at: int, value: int
) -> None:
    """As by the spec's decoder, which has no other errors than the ones that it says."""
    prediction = bits_of_kind(random, kind, 6, 7)
    content = bytearray(decompress(encode_chunk(near(random, prediction, 1.0), prediction, kind), 10**6)[0])
    content[at % len(content)] = value
    data = compress_parts([bytes(content)])
    try:
        theirs = spec_residual.decode_chunk(data, lambda a, t: prediction, (6, 7), DTYPE_OF[kind])
    except spec_decoder.Refused:
        with pytest.raises(ValueError, match="expected"):
            decode_chunk(data, lambda factors: prediction, (6, 7), kind)
        return
    assert decode_chunk(data, lambda factors: prediction, (6, 7), kind).tobytes() == theirs.tobytes()


def test_chunks_of_long_rows_have_factors_of_their_own() -> None:
    random = np.random.default_rng(0)
    rows, columns = 3, 2**19 + 1
    base = (random.standard_normal((rows, columns)).astype("<f4").view("<u4") >> 16).astype("<u2")
    entry = TensorEntry("t", TensorSpec("BF16", (rows, columns)), (Same(rows, BaseRows("b", 0)),))
    spec, data = entry.spec, base.reshape(-1).view(np.uint8)
    prediction = Prediction(entry, [(0, entry.blocks[0], None)], lambda name: (spec, data), False)
    source = spec_residual.Source(
        rows,
        spec_residual.as_elements(data.tobytes(), "BF16", columns),
        spec_residual.as_numbers(data.tobytes(), "BF16", columns),
    )
    found = list(chunk_ranges(prediction))
    assert found == [(0, 1), (1, 2), (2, 3)]
    for first, last in found:
        factors = Factors(np.array([0.01 * (first + 1)], np.float32))
        predicted = prediction.rows(first, last, factors)
        elements = near(random, predicted, 1.0, 1)
        encoded = encode_chunk(elements, predicted, prediction.kind, factors)
        theirs = partial(spec_residual.predict, [source], "BF16", first, last)
        decoded = spec_residual.decode_chunk(encoded, theirs, (last - first, columns), "BF16")
        assert decoded.tobytes() == elements.tobytes()
        assert (
            decode_chunk(encoded, partial(prediction.rows, first, last), (1, columns), prediction.kind).tobytes()
            == elements.tobytes()
        )
    assert as_elements(data, prediction).shape == (rows, columns)
