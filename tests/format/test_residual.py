"""Packs with residual layers of random tensors: our decoder and the spec's agree (section 15)."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dtscodec
from dtscodec.files.range_reader import Bytes, MemoryFile
from dtscodec.files.spool import Spool
from dtscodec.format.blocks import BaseRows, Block, LowRank, Same, Values, join_masks
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import CODED_DTYPES, DType, TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.reader import PackReader
from dtscodec.format.residual import chunk as chunks
from dtscodec.format.residual.chunk import encode_chunk
from dtscodec.format.residual.exact_tensor import chunk_ranges
from dtscodec.format.residual.integers import element_kind
from dtscodec.format.residual.layer_index import LayerIndex, TensorResidual, layer_index_text
from dtscodec.format.residual.prediction import Factors, Prediction
from dtscodec.format.streams import Streams
from dtscodec.format.summary import BaseRef, Summary
from dtscodec.format.writer import PackWriter
from dtscodec.quantize.packing import pack_codes
from dtscodec.quantize.widths import Bits
from tests.format.residual_strategies import bits_of_kind, near, seeds
from tests.format.strategies import tensor_lists
from tests.support import check_against_spec, spec_checks, spec_decoder, spec_stages

SIGNED: dict[Bits, Any] = {2: np.uint8, 4: np.uint8, 8: np.int8, 16: np.float16}


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
        dtscodec.encode(theirs, own, out, dtscodec.EncodeConfig(preset=dtscodec.BaseOnly(), exact=True))
        data = out.read_bytes()
        found, _ = spec_decoder.decode(data, base)
        assert found == fine
        assert spec_decoder.weight_files(data, base) == {"fine.safetensors": own.read_bytes()}
        with dtscodec.decode(out, theirs) as decoded:
            assert {name: decoded.read(name).tobytes() for name in decoded} == {n: t.data for n, t in fine.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_a_fine_tune_is_predicted_from_its_delta_and_restored(dtype: torch.dtype, decay: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = {name: torch.randn(96, 80).to(dtype) for name in ("a", "b")} | {"c": torch.randn(80)}
    fine = {
        name: ((1 - decay) * w.double() + 0.1 * torch.randn(len(w), 4).double() @ torch.randn(4, 80).double()).to(dtype)
        for name, w in base.items()
        if name != "c"
    }
    fine |= {"c": base["c"] + 1e-3, "d": torch.randn(5, 80, dtype=torch.float16)}
    out = tmp_path / "pack"
    dtscodec.encode(base, fine, out, dtscodec.EncodeConfig(target=dtscodec.RankShare(0.1), exact=True))
    check_against_spec(out, base)
    with dtscodec.decode(out, base) as decoded:
        assert all(torch.equal(decoded[name], w) for name, w in fine.items())
        layer = decoded.pack.reader.layer
        assert layer is not None
        assert layer.tensor("a").with_delta
    assert spec_decoder.strip(out.read_bytes()) != out.read_bytes()
    dtscodec.strip(out, tmp_path / "front")
    assert (tmp_path / "front").read_bytes() == spec_decoder.strip(out.read_bytes())
