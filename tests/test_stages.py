"""The spec's tables for each step of decoding, held against this package."""

import json
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.format.blocks import BaseRows, Block, CodedDelta, Content, Same, Values, parse_block
from dtscodec.format.blocks.coded import pack_bitmap, unpack_bitmap
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.digests import BlockHasher
from dtscodec.format.dtypes import TensorSpec, plane_count
from dtscodec.format.index import TensorEntry
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.byte_planes import join_planes
from dtscodec.format.primitives.canonical_json import Fields
from dtscodec.format.primitives.zstd_frames import compress_parts
from dtscodec.format.residual.buckets import join_buckets
from dtscodec.format.residual.chunk import decode_chunk
from dtscodec.format.residual.content import Content as ChunkContent
from dtscodec.format.residual.contexts import Scales
from dtscodec.format.residual.integers import element_kind, exponents, from_distances, to_distances
from dtscodec.format.residual.prediction import ExactDelta, Factors, Prediction
from dtscodec.format.streams import NO_NUMBERS, Streams
from dtscodec.quantize.packing import PackedVectors, pack_codes, unpack_codes
from dtscodec.quantize.scalar import dequantize
from tests.support import ROOT

STORED: dict[int, Any] = {2: np.uint8, 4: np.uint8, 8: np.int8, 16: np.float16}


def table(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "spec" / "vectors" / "stages" / f"{name}.json").read_text())
    return content


def as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


def test_code_vectors_pack_and_unpack_as_the_table_says() -> None:
    for case in table("codes")["cases"]:
        bits, packed = case["bits"], as_bytes(case["hex"]).reshape(1, -1)
        unsigned = np.array([case["codes"]], np.uint16 if bits == 16 else np.uint8)
        codes = unsigned.view(STORED[bits])
        assert pack_codes(codes, bits).tobytes() == packed.tobytes()
        assert unpack_codes(packed, codes.shape[1], bits).tobytes() == codes.tobytes()


def test_codes_have_the_values_of_the_table() -> None:
    levels = table("levels")
    own = np.array([float.fromhex(level) for level in levels["levels"]], np.float32).reshape(1, 4)
    for case in levels["cases"]:
        bits = case["bits"]
        unsigned = np.array([[case["code"]]], np.uint16 if bits == 16 else np.uint8)
        packed = pack_codes(unsigned.view(STORED[bits]), bits)
        value = dequantize(PackedVectors(packed, own, 1, bits))[0, 0]
        expected = np.float32(float.fromhex(case["value"]))
        assert value == expected or (np.isnan(value) and np.isnan(expected))


def test_bitmaps_are_those_of_the_table() -> None:
    for case in table("bitmaps")["cases"]:
        mask = np.isin(np.arange(case["bits"]), case["set"])
        assert pack_bitmap(mask).hex() == case["hex"]
        assert np.array_equal(unpack_bitmap(bytes.fromhex(case["hex"]), case["bits"]), mask)


def test_byte_planes_join_to_the_bytes_of_the_table() -> None:
    for case in table("planes")["cases"]:
        planes = [bytes.fromhex(plane) for plane in case["planes"]]
        data = as_bytes(case["hex"])
        joined = join_planes(b"".join(planes), list(map(len, planes)), data.size, plane_count(case["dtype"]))
        assert joined.tobytes() == data.tobytes()


def test_leaves_and_digests_are_those_of_the_table() -> None:
    leaves = table("leaves")
    for case in leaves["cases"]:
        spec = TensorSpec(case["dtype"], tuple(case["shape"]))
        assert leaf(spec, as_bytes(case["hex"])).hex() == case["leaf"]
    for case in leaves["digests"]:
        assert base_digest({name: bytes.fromhex(text) for name, text in case["leaves"].items()}).hex() == case["digest"]


def test_canonical_texts_are_accepted_and_others_refused() -> None:
    texts = table("json")
    for case in texts["accepted"]:
        data = bytes.fromhex(case["hex"])
        assert canonical.dumps(canonical.loads(data)) == data
    for case in texts["refused"]:
        with pytest.raises(ValueError, match="canonical"):
            canonical.loads(bytes.fromhex(case["hex"]))


def test_pack_ids_are_those_of_the_table() -> None:
    data = bytes(range(256)) * 300
    for case in table("pack-ids")["cases"]:
        hasher = BlockHasher(case["block"])
        hasher.update(data)
        digests = hasher.digests(bytes.fromhex(case["first_bytes_hex"]))
        assert digests.hex() == case["id"] + case["rows_hex"]


def test_conversions_round_as_the_table_says() -> None:
    for case in table("rounding")["cases"]:
        before = tensor_from_bytes(as_bytes(case["x_hex"]).copy(), TensorSpec(case["from"], (1,)))
        after = convert_dtype(before, case["to"])
        assert tensor_bytes(after).tobytes().hex() == case["y_hex"] or after.isnan().all(), case
        assert bool(after.isnan().all()) == (case["y"] == "nan")


def test_worked_examples_decode_to_their_deltas() -> None:
    for case in table("examples")["cases"]:
        block = parse_block(Fields(case["block"], "example"), case["rows"], BaseRows("w", 0))
        assert block.is_coded
        numbers = np.array([float.fromhex(number) for number in case["numbers"]], np.float32)
        codes = bytes.fromhex(case["codes_hex"])
        sizes = np.cumsum([0, *block.band_bytes(case["columns"])])
        bands = tuple(codes[begin:end] for begin, end in pairwise(sizes))
        streams = Streams(b"", numbers, bands)
        dense = block.split(case["columns"], streams).delta(np.float64).dense()
        expected = [[float.fromhex(value) for value in row] for row in case["delta"]]
        assert torch.allclose(torch.from_numpy(dense.copy()), torch.tensor(expected, dtype=torch.float64), rtol=1e-12)


def test_exact_products_are_those_of_the_table() -> None:
    for case in table("products")["cases"]:
        u, v, delta = (np.array([[float.fromhex(x) for x in row] for row in case[key]]) for key in ("u", "v", "delta"))
        found = ExactDelta(CodedDelta(None, None, u.T, v), delta.shape).rows(0, len(delta))
        assert found.tobytes() == delta.tobytes(), case


def prediction_of(dtype: Any, shape: tuple[int, ...], base_dtype: Any, base: str, delta: str | None) -> Prediction:
    """Of a tensor of one block, with the base's bytes in hex, and perhaps a delta for the only element."""
    spec, base_spec = TensorSpec(dtype, shape), TensorSpec(base_dtype, shape)
    rows, data = BaseRows("b", 0), as_bytes(base)
    block: Block = Same(shape[0], rows)
    content: Content = None
    if delta is not None:
        # A code of 16 bits is a number of F16.
        block = values = Values(1, rows, None, None, 16, False)
        codes = pack_codes(np.array([[float.fromhex(delta)]], np.float16), 16)
        content = values.split(1, Streams(b"", NO_NUMBERS, (codes.tobytes(),)))
    entry = TensorEntry("t", spec, (block,))
    return Prediction(entry, [(0, block, content)], lambda name: (base_spec, data), True)


def test_predictions_are_those_of_the_table() -> None:
    for case in table("predictions")["cases"]:
        prediction = prediction_of(case["dtype"], (1,), case["base_dtype"], case["base_hex"], case["delta"])
        a, t = (None if case[key] is None else np.float32(float.fromhex(case[key])) for key in ("a", "t"))
        found = prediction.rows(0, 1, Factors(None if a is None else np.array([a]), t))
        assert found.tobytes().hex() == case["prediction_hex"], case


def test_distances_are_those_of_the_table() -> None:
    for case in table("distances")["cases"]:
        kind = element_kind(case["dtype"])
        p, element = (as_bytes(case[f"{key}_hex"]).view(kind.signed) for key in ("prediction", "element"))
        z = as_bytes(case["z_hex"]).view(kind.unsigned)
        assert to_distances(element, p, kind).tobytes() == z.tobytes(), case
        assert from_distances(z, p, kind).tobytes() == element.tobytes(), case


def test_contexts_are_those_of_the_table() -> None:
    for case in table("contexts")["cases"]:
        kind = element_kind(case["dtype"])
        p = as_bytes(case["prediction_hex"]).view(kind.signed)[None]
        scales = Scales(case["offset"], *(np.array([case[key]], np.uint8) for key in ("row", "column")))
        assert scales.contexts(exponents(p, kind)).tolist() == [[case["context"]]], case


def test_integers_are_read_as_the_table_says() -> None:
    for case in table("integers")["cases"]:
        content = ChunkContent(compress_parts([bytes.fromhex(case["hex"])]), 10000)
        dtype, contexts = np.dtype(f"<u{case['bytes']}"), np.array(case["contexts"], np.uint8)
        assert join_buckets(content, contexts, dtype).tobytes().hex() == case["integers_hex"], case
        content.end()


def test_chunks_decode_to_the_elements_of_the_table() -> None:
    for case in table("chunks")["cases"]:
        shape = case["rows"], case["columns"]
        prediction = prediction_of(case["dtype"], shape, case["dtype"], case["base_hex"], None)
        found = decode_chunk(bytes.fromhex(case["hex"]), partial(prediction.rows, 0, shape[0]), shape, prediction.kind)
        assert found.tobytes().hex() == case["elements_hex"], case["what"]
