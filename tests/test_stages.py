"""The spec's tables for each step of decoding, held against this package."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_bytes, tensor_from_bytes
from dtscodec.format.blocks import BaseRows, parse_block
from dtscodec.format.blocks.coded import pack_bitmap, unpack_bitmap
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.digests import BlockHasher
from dtscodec.format.dtypes import TensorSpec, plane_count
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.byte_planes import join_planes
from dtscodec.format.primitives.canonical_json import Fields
from dtscodec.format.streams import Streams
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
