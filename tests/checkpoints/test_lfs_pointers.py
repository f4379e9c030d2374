"""Pointers of Git LFS are named for what they are, wherever a file is read."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.checkpoints.auxiliary_files import collect_files
from dtscodec.checkpoints.lfs_pointer import check_no_pointer
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 4976698672\n".encode()
MESSAGE = r"4,976,698,672 bytes \(sha256 abababababab\.\.\.\), got its Git LFS pointer; run 'git lfs pull'"


USUAL = ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json"]


@pytest.mark.parametrize("name", [*USUAL, "x.pt", "blob"])
def test_a_pointer_in_place_of_weights_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    for path in [tmp_path / name, *([tmp_path] if name in USUAL else [])]:
        with pytest.raises(CheckpointError, match=MESSAGE):
            open_checkpoint(path)


def test_a_pointer_in_place_of_a_shard_is_named(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(4), "b": torch.ones(4)}
    with open_checkpoint(tensors) as checkpoint:
        write_checkpoint(tmp_path / "m", checkpoint.specs, checkpoint.read, shard_bytes=16)
    (tmp_path / "m/model-00002-of-00002.safetensors").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"model-00002.*{MESSAGE}"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer.model", "1_Pooling/config.json"])
def test_a_pointer_in_place_of_a_small_file_does_not_travel(tmp_path: Path, name: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=MESSAGE):
        collect_files(tmp_path, None, frozenset())


def test_extensions_before_the_oid_are_part_of_a_pointer() -> None:
    lines = POINTER.splitlines(keepends=True)
    with pytest.raises(CheckpointError, match=MESSAGE):
        check_no_pointer(Path("x"), b"".join([lines[0], b"ext-0-foo sha256:12\n", *lines[1:]]))


@pytest.mark.parametrize("data", [b"", b"version 1\n", POINTER + b" " * 1024, POINTER[40:]])
def test_other_content_is_no_pointer(data: bytes) -> None:
    check_no_pointer(Path("x"), data)


def test_a_pointer_in_place_of_a_pack_is_named(tmp_path: Path) -> None:
    (tmp_path / "movie.dts.safetensors").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=MESSAGE):
        dtscodec.open(tmp_path / "movie.dts.safetensors")
