import hashlib
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from dtscodec.checkpoints import base as base_module
from dtscodec.checkpoints import known_leaves
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import BaseMismatchError
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import TensorSpec

from .helpers import random_bytes, spec_maps

SPECS = {"a": TensorSpec("F32", (3, 4)), "b": TensorSpec("BF16", (5,)), "é": TensorSpec("I64", ())}
DATA = random_bytes(SPECS)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[TensorSpec]:
    """The specs of all tensors that are hashed, in order; nothing is known at first."""
    specs: list[TensorSpec] = []

    def counting(spec: TensorSpec, data: Any) -> bytes:
        specs.append(spec)
        return leaf(spec, data)

    monkeypatch.setattr(base_module, "leaf", counting)
    monkeypatch.setattr(known_leaves, "_leaves", {})
    return specs


def old_file(path: Path, data: Any = DATA) -> Path:
    """A checkpoint file that was changed an hour ago."""
    write_checkpoint(path, SPECS, data.__getitem__, force=True)
    hour_ago = time.time_ns() - 3600 * 10**9
    os.utime(path, ns=(hour_ago, hour_ago))
    return path


def test_leaf_is_as_the_spec_says() -> None:
    data = np.arange(12, dtype=np.uint8)
    text = b"dtscodec-tensor-1\nBF16\n2,3\n" + bytes(range(12))
    assert leaf(TensorSpec("BF16", (2, 3)), data) == hashlib.sha256(text).digest()
    scalar = b"dtscodec-tensor-1\nF32\n\n" + bytes(range(4))
    assert leaf(TensorSpec("F32", ()), data[:4]) == hashlib.sha256(scalar).digest()


def test_digest_is_as_the_spec_says() -> None:
    leaves = {"é": bytes(32), "b": b"\1" * 32}
    text = (
        b"dtscodec-base-1\n"
        + struct.pack("<I", 1)
        + b"b"
        + b"\1" * 32
        + struct.pack("<I", 2)
        + "é".encode()
        + bytes(32)
    )
    assert base_digest(leaves) == hashlib.sha256(text).digest()


@given(spec_maps())
def test_leaves_tell_dtype_and_shape_apart(specs: dict[str, TensorSpec]) -> None:
    distinct = set(specs.values())
    assert len({leaf(spec, np.zeros(spec.nbytes, np.uint8)) for spec in distinct}) == len(distinct)


def test_digest_does_not_depend_on_the_container(tmp_path: Path) -> None:
    digests = set()
    for kind, shard in (("x.safetensors", 0), ("x.bin", 0), ("d", 10**6), ("sharded", 20)):
        write_checkpoint(tmp_path / kind, SPECS, DATA.__getitem__, shard_bytes=shard)
        with Base(tmp_path / kind) as base:
            digests.add(base.digest(["é", "a", "b", "a"]))
            assert base.digest(["a"]) not in digests
    assert len(digests) == 1


@pytest.mark.parametrize("width", [4, 17, 32])
def test_right_leaf_prefix_passes(width: int) -> None:
    tensor = torch.arange(4.0)
    base = Base({"w": tensor})
    expect = base.leaf("w")[:width]
    assert base.read("w", expect).tobytes() == tensor.numpy().tobytes()


def test_wrong_leaf_names_tensor_expected_and_got() -> None:
    base = Base({"layer.w": torch.zeros(4)})
    with pytest.raises(BaseMismatchError) as caught:
        base.read("layer.w", b"\xab\xcd\xef\x01")
    assert caught.value.reason == "base-leaf"
    assert all(s in str(caught.value) for s in ("'layer.w'", "abcdef01", base.leaf("layer.w").hex()[:8], "`base`"))


def test_without_expectation_nothing_is_hashed(hashed: list[TensorSpec]) -> None:
    Base({"w": torch.zeros(4)}).read("w")
    assert hashed == []


@pytest.mark.parametrize("expect", [b"", b"abc", b"x" * 33])
def test_leaf_prefix_has_4_to_32_bytes(expect: bytes) -> None:
    with pytest.raises(ValueError, match="4 to 32"):
        Base({"w": torch.zeros(4)}).read("w", expect)


def test_missing_tensor_is_named() -> None:
    base = Base({"w": torch.zeros(4)})
    for use in (base.read, base.leaf, lambda name: base.digest([name])):
        with pytest.raises(BaseMismatchError, match="'v'") as caught:
            use("v")
        assert caught.value.reason == "base-tensor"


def test_mapping_is_hashed_once_per_base(hashed: list[TensorSpec]) -> None:
    base = Base({"w": torch.zeros(4)})
    expect = base.leaf("w")
    for _ in range(3):
        base.read("w", expect)
        base.digest(["w"])
    assert len(hashed) == 1
    Base({"w": torch.zeros(4)}).leaf("w")
    assert len(hashed) == 2


@pytest.mark.parametrize("kind", ["x.safetensors", "x.bin"])
def test_file_is_hashed_once_per_process(tmp_path: Path, hashed: list[TensorSpec], kind: str) -> None:
    path = old_file(tmp_path / kind)
    for _ in range(3):
        with Base(path) as base:
            assert base.read("a", leaf(SPECS["a"], DATA["a"])[:4]).tobytes() == DATA["a"].tobytes()
            base.digest(["a", "b"])
    assert hashed == [SPECS["a"], SPECS["b"]]


def test_known_leaf_is_told_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Base(old_file(tmp_path / "x.safetensors")) as base:
        known = base.leaf("a")
        monkeypatch.setattr(base.checkpoint, "read", lambda name: pytest.fail("a tensor was read"))
        assert base.leaf("a") == known


def test_changed_file_is_hashed_again(tmp_path: Path, hashed: list[TensorSpec]) -> None:
    path = old_file(tmp_path / "x.safetensors")
    with Base(path) as base:
        before = base.leaf("a")
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size - DATA["a"].size - DATA["b"].size)  # I64 comes first in the file.
            file.write(b"\0\1\2\3")
        assert base.leaf("a") != before
        with pytest.raises(BaseMismatchError, match="'a'"):
            base.read("a", before)
    with Base(path) as base:
        assert base.leaf("a") != before


def test_leaf_of_a_file_just_written_is_not_kept_beyond_its_base(tmp_path: Path, hashed: list[TensorSpec]) -> None:
    write_checkpoint(tmp_path / "x.safetensors", SPECS, DATA.__getitem__)
    for _ in range(2):
        with Base(tmp_path / "x.safetensors") as base:
            base.leaf("a")
            base.leaf("a")
    assert len(hashed) == 2


def test_base_closes_only_what_it_opened(tmp_path: Path) -> None:
    path = old_file(tmp_path / "x.safetensors")
    with open_checkpoint(path) as checkpoint:
        with Base(checkpoint) as base:
            assert base.specs == SPECS
            assert base.location == str(path)
        assert checkpoint.read("a").tobytes() == DATA["a"].tobytes()
    with Base(path) as base:
        pass
    with pytest.raises(ValueError, match="closed"):
        base.read("a")
