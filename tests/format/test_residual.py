"""The residual layer: its steps are inverses, and our decoder and the spec's agree on random tensors (section 15)."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dtscodec
from dtscodec.files.range_reader import Bytes, MemoryFile
from dtscodec.files.spool import Spool
from dtscodec.format.blocks import BaseRows, Block, CodedDelta, LowRank, Same, Values, join_masks
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import CODED_DTYPES, DType, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.primitives.zstd_frames import compress_parts, decompress
from dtscodec.format.reader import PackReader
from dtscodec.format.residual import chunk as chunks
from dtscodec.format.residual.bucket_code import SHARED, BucketCode, join_bucket, read_symbols, split_bucket
from dtscodec.format.residual.buckets import join_buckets, most_bytes, split_buckets
from dtscodec.format.residual.chunk import decode_chunk, encode_chunk
from dtscodec.format.residual.content import Content
from dtscodec.format.residual.contexts import CONTEXTS, measure_scales
from dtscodec.format.residual.exact_tensor import as_elements, chunk_ranges
from dtscodec.format.residual.integers import ElementKind, element_kind, exponents, from_distances, to_distances
from dtscodec.format.residual.layer_index import LayerIndex, TensorResidual, layer_index_text
from dtscodec.format.residual.prediction import ExactDelta, Factors, Prediction
from dtscodec.format.streams import Streams
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.writer import PackWriter
from dtscodec.quantize.packing import pack_codes
from dtscodec.quantize.widths import Bits
from tests.format.strategies import tensor_lists
from tests.support import spec_checks, spec_decoder, spec_residual, spec_stages

ALL: list[DType] = sorted(get_args(DType))
KINDS = sorted({element_kind(dtype) for dtype in ALL}, key=str)
DTYPE_OF = {element_kind(dtype): dtype for dtype in ALL if dtype != "C64"}
SIGNED: dict[Bits, Any] = {2: np.uint8, 4: np.uint8, 8: np.int8, 16: np.float16}

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def bits_of_kind(random: np.random.Generator, kind: ElementKind, *shape: int) -> np.ndarray:
    """Any bits: for floats many NaNs, subnormal numbers and numbers of all sizes."""
    count = int(np.prod(shape))
    bits: np.ndarray = np.frombuffer(random.bytes(count * kind.size), kind.signed).reshape(shape).copy()
    return bits


def near(random: np.random.Generator, prediction: np.ndarray, share: float, most: int = 9) -> np.ndarray:
    """A share of the elements differs by a few steps."""
    steps = random.integers(-most, most + 1, prediction.shape) * (random.random(prediction.shape) < share)
    result: np.ndarray = prediction + steps.astype(prediction.dtype)
    return result


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


# Packs with residual layers of random tensors


@dataclass(frozen=True)
class Made:
    """A pack with a residual layer, its base, and the tensors that it decodes to."""

    data: bytes
    base: dict[str, Any]
    tensors: dict[str, bytes]


def own_bases(tensors: list[TensorEntry], random: np.random.Generator) -> Iterator[tuple[TensorEntry, dict[str, Any]]]:
    """Give each block a base tensor of its own, perhaps of another dtype."""
    for number, entry in enumerate(tensors):
        blocks: list[Block] = []
        base: dict[str, Any] = {}
        for place, block in enumerate(entry.blocks):
            if not isinstance(block, Same | Values | LowRank) or (rows := block.base) is None:
                blocks.append(block)
                continue
            name, dtype = f"b{number}.{place}", entry.spec.dtype
            if dtype in CODED_DTYPES and random.random() < 0.3:
                dtype = random.choice(sorted(CODED_DTYPES))
            spec = TensorSpec(dtype, (rows.first + block.height, entry.columns))
            data = random.bytes(spec.nbytes)
            if dtype in ("F32", "F64") and random.random() < 0.7:
                data = random.standard_normal(spec.elements).astype(f"<f{int(dtype[1:]) // 8}").tobytes()
            base[name] = spec_decoder.Tensor(dtype, spec.shape, data)
            blocks.append(replace(block, base=BaseRows(name, rows.first)))
        yield replace(entry, blocks=tuple(blocks)), base


def streams_of(entry: TensorEntry, random: np.random.Generator) -> Iterator[Streams]:
    """Random streams that fit the blocks of a tensor."""
    for block in entry.blocks:
        sizes = block.stream_sizes(entry.columns, entry.spec.dtype)
        if not isinstance(block, LowRank | Values):
            yield Streams(raw=random.bytes(sizes.raw))
            continue
        rows, cols = block.rows or block.height, block.cols or entry.columns
        chosen = ((block.rows, block.height), (block.cols, entry.columns))
        masks = [None if k is None else random.permutation(n) < k for k, n in chosen]
        bands = []
        if isinstance(block, Values):
            bands.append(vectors(random, 1, rows * cols, block.bits)[0])
        else:
            for band in block.bands:
                sides = [vectors(random, band.rank, n, band.bits) for n in (rows, cols)]
                bands.append(b"".join(u + v for u, v in zip(*sides, strict=True)))
        numbers = np.sort(np.abs(random.standard_normal(sizes.numbers))).astype(np.float32)
        yield Streams(join_masks(*masks), numbers, tuple(bands), b"")


def vectors(random: np.random.Generator, count: int, n: int, bits: Bits) -> list[bytes]:
    if bits == 16:
        codes = random.standard_normal((count, n)).astype(np.float16)
    else:
        codes = random.integers(0, 2**bits, (count, n)).astype(np.uint8).view(SIGNED[bits])
    return [row.tobytes() for row in pack_codes(codes, bits)]


def make(tensors: list[TensorEntry], random: np.random.Generator, numbers: str) -> Made:
    """A front of random streams, and a layer with random predictions and factors."""
    entries: list[TensorEntry] = []
    bases: dict[str, Any] = {}
    for entry, base in own_bases(tensors, random):
        entries.append(entry)
        bases |= base
    with PackWriter(numbers) as writer:
        for entry in entries:
            writer.add(entry, list(streams_of(entry, random)))
        leaves = {name: spec_stages.leaf(*tensor) for name, tensor in bases.items()}
        own = spec_stages.base_digest(leaves).hex()
        front = io.BytesIO()
        writer.write(front, Summary(0, base=BaseRef(own) if bases else None), leaves)
    reader = PackReader(MemoryFile(front.getvalue()), "front")
    residuals: list[TensorResidual] = []
    fine: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, closing(Spool(Path(folder))) as spool:
        for entry in entries:
            with_delta, data = bool(random.integers(2)), b""

            def read_base(name: str) -> tuple[TensorSpec, Bytes]:
                tensor = bases[name]
                return TensorSpec(tensor.dtype, tensor.shape), np.frombuffer(tensor.data, np.uint8)

            prediction = Prediction(entry, reader.contents(entry.name), read_base, with_delta)
            lengths = []
            for first, last in chunk_ranges(prediction):
                factors = Factors(
                    random.standard_normal(last - first).astype(np.float32) if random.random() < 0.4 else None,
                    np.float32(random.standard_normal()) if random.random() < 0.4 else None,
                )
                predicted = prediction.rows(first, last, factors)
                elements = near(random, predicted, random.choice([0.0, 0.02, 0.3, 1.0]))
                if random.random() < 0.2:
                    elements = bits_of_kind(random, prediction.kind, *predicted.shape)
                encoded = encode_chunk(elements, predicted, prediction.kind, factors)
                spool.write(encoded)
                lengths.append(len(encoded))
                data += elements.tobytes()
            fine[entry.name] = data
            digest = leaf(entry.spec, np.frombuffer(data, np.uint8)).hex()
            residuals.append(TensorResidual(digest, tuple(lengths) if any(lengths) else (), with_delta))
        content = base_digest({e.name: bytes.fromhex(r.leaf) for e, r in zip(entries, residuals, strict=True)})
        file = io.BytesIO()
        reader.write_layered(file, content.hex(), layer_index_text(LayerIndex(tuple(residuals))), spool)
    return Made(file.getvalue(), bases, fine)


@settings(max_examples=60)
@given(tensor_lists(), seeds, st.sampled_from(["F32", "BF16"]), st.sampled_from([4, 2**20]))
def test_the_decoder_of_the_spec_agrees_on_random_layers(
    tensors: list[TensorEntry], random: np.random.Generator, numbers: str, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Chunks of few elements, so that tensors have several.
        patch.setattr(chunks, "CHUNK_ELEMENTS", size)
        patch.setattr(spec_checks, "CHUNK_ELEMENTS", size)
        made = make(tensors, random, numbers)
        found, _ = spec_decoder.decode(made.data, made.base)
        assert {name: tensor.data for name, tensor in found.items()} == made.tensors
        reader = PackReader(MemoryFile(made.data), "pack")
        assert sum(reader.check_all()) > 0

        def read_base(name: str) -> tuple[TensorSpec, Bytes]:
            tensor = made.base[name]
            return TensorSpec(tensor.dtype, tensor.shape), np.frombuffer(tensor.data, np.uint8)

        for name, data in made.tensors.items():
            assert reader.exact(name, read_base).tobytes() == data


@settings(max_examples=15)
@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"),
        # Weights of few bits might be taken for quantized ones, of which the scales are missing.
        st.tuples(
            st.sampled_from(["BF16", "F16", "F32", "F64", "BOOL", "U16", "I32", "I64", "C64"]),
            st.lists(st.integers(0, 5), max_size=3),
        ),
        max_size=4,
    ),
    seeds,
)
def test_a_fine_tune_of_any_dtypes_and_shapes_is_restored(
    specs: dict[str, tuple[DType, list[int]]], random: np.random.Generator
) -> None:
    base, fine = {}, {}
    # Most of the fine-tune must be in the base.
    for name, (dtype, shape) in (specs | {"w": ("F32", [1])}).items():
        spec = TensorSpec(dtype, (*shape, 8))
        data = random.bytes(spec.nbytes)
        base[name] = spec_decoder.Tensor(dtype, spec.shape, data)
        kind = element_kind(dtype)
        changed = near(random, np.frombuffer(data, kind.signed), random.choice([0.0, 0.01, 1.0])).tobytes()
        fine[name] = spec_decoder.Tensor(dtype, spec.shape, changed)
    fine["new"] = spec_decoder.Tensor("BF16", (3, 2), random.bytes(12))
    with tempfile.TemporaryDirectory() as folder:
        own, theirs, out = (Path(folder, name) for name in ("fine.safetensors", "base.safetensors", "out"))
        own.write_bytes(spec_decoder.write_safetensors(fine, {"format": "pt"}))
        theirs.write_bytes(spec_decoder.write_safetensors(base))
        dtscodec.encode_exact(theirs, own, out, dtscodec.EncodeConfig(preset=dtscodec.BaseOnly()))
        data = out.read_bytes()
        found, _ = spec_decoder.decode(data, base)
        assert found == fine
        assert spec_decoder.weight_files(data, base) == {"fine.safetensors": own.read_bytes()}
        with dtscodec.decode(out, theirs) as decoded:
            assert {name: decoded.read(name).tobytes() for name in decoded} == {n: t.data for n, t in fine.items()}


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
