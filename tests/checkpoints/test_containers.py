import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec

from .helpers import assert_holds, one_of_each, random_bytes

SPECS = {"a.w": TensorSpec("F32", (3, 4)), "b.w": TensorSpec("BF16", (5,)), "c": TensorSpec("I64", ())}
DATA = random_bytes(SPECS)


def write(
    path: Path, specs: Mapping[str, TensorSpec] = SPECS, data: Mapping[str, Bytes] = DATA, **options: Any
) -> Path:
    write_checkpoint(path, specs, data.__getitem__, **options)
    return path


def sharded(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A directory of two shards, and what its index says."""
    write(tmp_path / "model", shard_bytes=50)
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 2
    return tmp_path / "model", index


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    for word in words:
        assert word in str(caught.value)


def test_safetensors_file_of_the_library_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"w": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "n": torch.tensor(3)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint, open_checkpoint(tensors) as memory:
        assert_holds(checkpoint, memory.specs, {name: memory.read(name) for name in tensors})
        assert checkpoint.metadata == {"format": "pt"}
        assert checkpoint.location == str(tmp_path / "x.safetensors")
        assert checkpoint.directory == tmp_path
        assert not checkpoint.is_directory
        assert checkpoint.weight_files == {"x.safetensors"}


def test_every_container_satisfies_the_protocol(tmp_path: Path) -> None:
    sources: list[Any] = [write(tmp_path / name) for name in ("x.safetensors", "x.bin", "directory")]
    for source in [*sources, sharded(tmp_path)[0], {"w": torch.zeros(2)}]:
        with open_checkpoint(source) as checkpoint:
            assert isinstance(checkpoint, Checkpoint)


def test_sharded_directory_is_read_as_one(tmp_path: Path) -> None:
    directory, index = sharded(tmp_path)
    for source in (directory, directory / "model.safetensors.index.json"):
        with open_checkpoint(source) as checkpoint:
            assert_holds(checkpoint, SPECS, DATA)
            assert checkpoint.is_directory
            assert checkpoint.directory == directory
            assert checkpoint.weight_files == {"model.safetensors.index.json", *index["weight_map"].values()}


def test_sharded_torch_files_are_read_as_one(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"b": torch.zeros(3)}, tmp_path / "pytorch_model-2.bin")
    weight_map = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("a").view(np.float32).tolist() == [1, 1]
        assert list(checkpoint.specs) == ["a", "b"]


def test_metadata_of_all_shards_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "m", shard_bytes=50, metadata={"format": "pt", "note": "x"})
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.metadata == {"format": "pt", "note": "x"}


def test_model_directory_prefers_safetensors_then_index_then_bin(tmp_path: Path) -> None:
    order = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]
    write(tmp_path / "model.safetensors", {"one": SPECS["c"]}, {"one": DATA["c"]})
    write(tmp_path / "shard.safetensors", {"two": SPECS["c"]}, {"two": DATA["c"]})
    write(tmp_path / "pytorch_model.bin", {"three": SPECS["c"]}, {"three": DATA["c"]})
    write(tmp_path / "shard.bin", {"four": SPECS["c"]}, {"four": DATA["c"]})
    (tmp_path / order[1]).write_text('{"weight_map": {"two": "shard.safetensors"}}')
    (tmp_path / order[3]).write_text('{"weight_map": {"four": "shard.bin"}}')
    for name, file in zip(["one", "two", "three", "four"], order, strict=True):
        with open_checkpoint(tmp_path) as checkpoint:
            assert list(checkpoint.specs) == [name]
            assert checkpoint.is_directory
        (tmp_path / file).unlink()


def test_directory_with_one_other_safetensors_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "adapter.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert_holds(checkpoint, SPECS, DATA)
        assert checkpoint.weight_files == {"adapter.safetensors"}


def test_directory_without_weights_lists_what_was_looked_for(tmp_path: Path) -> None:
    refused(tmp_path, "model.safetensors", "pytorch_model.bin.index.json", "none")


def test_directory_with_two_candidates_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors")
    refused(tmp_path, "exactly one", "2 such files")


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    for name in ("x", "x.safetensors", "x.bin", "x.index.json", "a\0b"):
        with pytest.raises(CheckpointError, match="got nothing"):
            open_checkpoint(tmp_path / name)


def test_device_is_no_checkpoint() -> None:
    refused(Path(os.devnull), "something else")


@pytest.mark.parametrize("target", ["x.safetensors", "x.bin"])
def test_files_of_other_names_are_told_by_content(tmp_path: Path, target: str) -> None:
    write(tmp_path / target)
    os.rename(tmp_path / target, tmp_path / "blob")
    with open_checkpoint(tmp_path / "blob") as checkpoint:
        assert_holds(checkpoint, SPECS, DATA)


def test_header_length_that_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    specs = {"n" * (640 - 56): TensorSpec("U8", (0,))}
    write(tmp_path / "x.safetensors", specs, random_bytes(specs))
    os.rename(tmp_path / "x.safetensors", tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes()[:2] == b"\x80\2"
    with open_checkpoint(tmp_path / "blob") as checkpoint:
        assert dict(checkpoint.specs) == specs


def test_cut_off_file_names_expected_and_got(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors")
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        refused(path, "expected", "got")


def test_file_cut_off_while_open_is_refused(tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.bin"):
        path = write(tmp_path / name)
        with open_checkpoint(path) as checkpoint:
            os.truncate(path, 40)
            with pytest.raises(CheckpointError, match="cut off"):
                checkpoint.read("b.w")


def test_many_threads_read_the_same_file(tmp_path: Path) -> None:
    specs = one_of_each()
    data = random_bytes(specs)
    with open_checkpoint(write(tmp_path / "x.safetensors", specs, data)) as checkpoint:
        wrong: list[str] = []

        def read_all() -> None:
            wrong.extend(n for n in specs for _ in range(5) if checkpoint.read(n).tobytes() != data[n].tobytes())

        threads = [threading.Thread(target=read_all) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_files_without_pread_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    with open_checkpoint(write(tmp_path / "x.safetensors")) as checkpoint:
        assert_holds(checkpoint, SPECS, DATA)


def test_signature_changes_with_the_file(tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.bin"):
        path = write(tmp_path / name)
        with open_checkpoint(path) as checkpoint:
            before = checkpoint.signature("a.w")
            assert before == checkpoint.signature("a.w") != checkpoint.signature("c")
            os.utime(path, ns=(0, 0))
            assert checkpoint.signature("a.w") != before


BAD_INDEXES: dict[str, Any] = {
    "not json": "{",
    "no object": "[]",
    "no weight map": "{}",
    "empty weight map": '{"weight_map": {}}',
    "key twice": '{"weight_map": {"a.w": "S", "a.w": "S"}}',
    "shard no string": '{"weight_map": {"a.w": 3}}',
    "shard in a directory": '{"weight_map": {"a.w": "../S"}}',
    "absolute shard": '{"weight_map": {"a.w": "/S"}}',
    "backslash": '{"weight_map": {"a.w": "d\\\\S"}}',
    "parent": '{"weight_map": {"a.w": ".."}}',
    "missing shard": '{"weight_map": {"a.w": "missing.safetensors"}}',
    "shard is the index itself": '{"weight_map": {"a.w": "model.safetensors.index.json"}}',
}


@pytest.mark.parametrize("rule", BAD_INDEXES)
def test_bad_index_is_refused(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(BAD_INDEXES[rule])
    with pytest.raises(CheckpointError, match=f"^{tmp_path}/m"):
        open_checkpoint(tmp_path)


def test_a_shard_that_the_index_lists_and_that_is_not_there_is_named_with_a_remedy(tmp_path: Path) -> None:
    directory, index = sharded(tmp_path)
    shard = directory / index["weight_map"]["c"]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"^{shard}: expected this shard, which the index lists.*download it"):
        open_checkpoint(directory)


def test_tensor_missing_in_its_shard_is_refused(tmp_path: Path) -> None:
    directory, index = sharded(tmp_path)
    index["weight_map"]["extra"] = index["weight_map"]["a.w"]
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(directory / "model.safetensors.index.json", "'extra'", "without it")


def test_tensor_that_the_index_does_not_list_is_refused(tmp_path: Path) -> None:
    directory, index = sharded(tmp_path)
    del index["weight_map"]["c"]
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(directory / "model.safetensors.index.json", "'c'", "not listed")


def test_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    directory, index = sharded(tmp_path)
    write(directory / index["weight_map"]["c"], force=True)
    refused(directory / "model.safetensors.index.json", "'a.w'", "listed for")


def test_opening_a_bad_index_leaves_no_file_open(tmp_path: Path) -> None:
    directory, _ = sharded(tmp_path)
    index = directory / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("a.w", "A.w"))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    refused(index)
    assert before is None or len(os.listdir("/proc/self/fd")) == before
