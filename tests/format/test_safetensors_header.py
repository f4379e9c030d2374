import contextlib
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.primitives.safetensors_header import header_bytes, read_header
from tests.checkpoints.helpers import spec_maps

W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def parse(header: bytes | Mapping[str, Any], data: int = 8, claim: int | None = None) -> Any:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file = struct.pack("<Q", len(text) if claim is None else claim) + text + bytes(data)
    return read_header(io.BytesIO(file), "x.safetensors")


@given(spec_maps(), st.dictionaries(st.text(st.characters(codec="utf-8")), st.text('aé\n"\\'), max_size=3))
def test_header_round_trips(specs: dict[str, TensorSpec], metadata: dict[str, str]) -> None:
    head = header_bytes(metadata, specs)
    size = sum(spec.nbytes for spec in specs.values())
    header = read_header(io.BytesIO(head + bytes(size)), "x")
    assert {name: entry.spec for name, entry in header.tensors.items()} == specs
    assert list(header.tensors) == list(specs)
    assert header.metadata == metadata
    assert header.data_start == len(head)
    assert len(head) % 8 == 0


def test_library_reads_our_header(tmp_path: Path) -> None:
    from safetensors import safe_open

    specs = {"b": TensorSpec("BF16", (2, 3)), "a": TensorSpec("U8", (0,)), "c": TensorSpec("I8", ())}
    (tmp_path / "x.safetensors").write_bytes(header_bytes({"format": "pt"}, specs) + bytes(13))
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_slice("b").get_shape() == [2, 3]


BAD_HEADERS: dict[str, tuple[Any, int]] = {
    "no object": (b"[]", 0),
    "leading space": (b" {}", 0),
    "not json": (b'{"w": ', 0),
    "not utf-8": (b'{"\xff": 1}', 0),
    "nan": (b'{"w": NaN}', 0),
    "deep nesting": (b'{"w":' * 100_000, 0),
    "duplicate name": (b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{}}', 8),
    "duplicate key": (b'{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "w": W}, 8),
    "metadata no object": ({"__metadata__": "pt", "w": W}, 8),
    "unknown key": ({"w": {**W, "strides": [1]}}, 8),
    "missing key": ({"w": {"dtype": "F32", "shape": [2]}}, 8),
    "entry no object": ({"w": 3}, 8),
    "unknown dtype": ({"w": {**W, "dtype": "F33"}}, 8),
    "dtype no string": ({"w": {**W, "dtype": ["F32"]}}, 8),
    "negative dimension": ({"w": {**W, "shape": [-2]}}, 8),
    "boolean dimension": ({"w": {**W, "shape": [True, 2]}}, 8),
    "fraction": ({"w": {**W, "shape": [2.0]}}, 8),
    "nine dimensions": ({"w": {**W, "shape": [1] * 8 + [2]}}, 8),
    "terabytes": ({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, 8),
    "overflowing shape": ({"w": {**W, "shape": [2**62, 2**62]}}, 8),
    "enormous integer": (b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', 8),
    "three offsets": ({"w": {**W, "data_offsets": [0, 8, 8]}}, 8),
    "size unlike shape": ({"w": {**W, "data_offsets": [0, 4]}}, 4),
    "negative offset": ({"w": {**W, "data_offsets": [-8, 0]}}, 0),
    "gap at the start": ({"w": {**W, "data_offsets": [4, 12]}}, 12),
    "gap between": ({"v": W, "w": {**W, "data_offsets": [12, 20]}}, 20),
    "overlap": ({"v": W, "w": {**W, "data_offsets": [4, 12]}}, 12),
    "same place twice": ({"v": W, "w": W}, 8),
    "empty tensor within another": ({"v": W, "w": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}, 8),
    "data cut off": ({"w": W}, 7),
    "trailing bytes": ({"w": W}, 9),
    "empty name": ({"": W}, 8),
    "long name": ({"n" * 1025: W}, 8),
    "lone surrogate": (b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8),
}


@pytest.mark.parametrize("rule", BAD_HEADERS)
def test_bad_header_is_refused(rule: str) -> None:
    header, data = BAD_HEADERS[rule]
    with pytest.raises(CheckpointError, match=r"^x\.safetensors: ") as caught:
        parse(header, data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("claim", [3, 2**31, 10**8, 2**40, 2**64 - 1])
def test_claimed_header_length_is_checked_before_reading(claim: int) -> None:
    with pytest.raises(CheckpointError):
        parse({}, data=0, claim=claim)


@pytest.mark.parametrize("size", range(8))
def test_file_shorter_than_a_length_is_refused(size: int) -> None:
    with pytest.raises(CheckpointError, match="at least 8 bytes"):
        read_header(io.BytesIO(bytes(size)), "x")


def test_file_of_zeros_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_header(io.BytesIO(bytes(1000)), "x")


def test_empty_tensors_lie_anywhere_between_others() -> None:
    empty = {"dtype": "F32", "shape": [0]}
    header = {"w": W, "a": {**empty, "data_offsets": [8, 8]}, "b": {**empty, "data_offsets": [0, 0]}}
    assert len(parse(header).tensors) == 3


def test_metadata_may_be_null() -> None:
    assert parse({"__metadata__": None, "w": W}).metadata == {}


@given(st.data())
def test_any_damage_to_a_header_is_refused_or_parsed_cleanly(data: st.DataObject) -> None:
    whole = bytearray(header_bytes({"format": "pt"}, {"w": TensorSpec("F32", (2,))}) + bytes(8))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(CheckpointError):
        read_header(io.BytesIO(bytes(whole[:cut])), "x")
