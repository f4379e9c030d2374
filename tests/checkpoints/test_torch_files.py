import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError, OutputError
from dtscodec.format.dtypes import TensorSpec

from .helpers import TORCHLESS, assert_holds, one_of_each, random_bytes

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "c": torch.ones(3).bfloat16()}


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("zip_format", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, zip_format: bool) -> None:
    torch.save(TENSORS, tmp_path / "x.bin", _use_new_zipfile_serialization=zip_format)
    with open_checkpoint(tmp_path / "x.bin") as checkpoint, open_checkpoint(TENSORS) as memory:
        assert_holds(checkpoint, memory.specs, {name: memory.read(name) for name in TENSORS})


@pytest.mark.parametrize("wrap", [lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": t}, OrderedDict])
def test_usual_wrappers_are_opened(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(TENSORS), tmp_path / "x.pt")
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        assert list(checkpoint.specs) == ["a", "b", "c"]


def test_compressed_archive_is_read_without_a_map(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.bin")
    with (
        zipfile.ZipFile(tmp_path / "x.bin") as old,
        zipfile.ZipFile(tmp_path / "y.bin", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with open_checkpoint(tmp_path / "y.bin") as checkpoint:
        assert checkpoint.read("a").view(np.float32).tolist() == list(range(6))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("zip_format", [True, False])
def test_code_is_never_run_and_the_remedy_is_safetensors(
    tmp_path: Path, zip_format: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": TENSORS["a"], "x": Evil()}, tmp_path / "x.bin", _use_new_zipfile_serialization=zip_format)
    refused(tmp_path / "x.bin", "posix.system", "convert it to safetensors")
    assert not (tmp_path / "pwned").exists()


def test_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"w": 1}))
    refused(tmp_path / "x.pt")


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    torch.save({"w": TENSORS["a"], "epoch": 3, "names": ["x"]}, tmp_path / "x.bin")
    refused(tmp_path / "x.bin", "'epoch' (int)", "'names' (list)")


@pytest.mark.parametrize("content", [TENSORS["a"], [TENSORS["a"]], None, "text"])
def test_content_must_be_a_mapping(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.bin")
    refused(tmp_path / "x.bin", "mapping of names")


def test_any_truncation_is_one_line(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.bin")
    whole = (tmp_path / "x.bin").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "x.bin").write_bytes(whole[:size])
        refused(tmp_path / "x.bin", "expected", "got")


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.touch()
    with pytest.raises(CheckpointError, match="got an empty file"):
        open_checkpoint(path)


def test_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(tmp_path / "x.bin")


def test_tied_storages_are_aliases(tmp_path: Path) -> None:
    w = torch.randn(4, 3)
    tensors = {"tied": w, "w": w, "part": w[:2], "turned": w.T, "other": w.clone(), "e": w[:0], "f": w[:0]}
    torch.save(tensors, tmp_path / "x.bin")
    for source in (tmp_path / "x.bin", tensors):
        with open_checkpoint(source) as checkpoint:
            assert checkpoint.aliases == {"w": "tied"}
            assert checkpoint.read("turned").tobytes() == w.T.contiguous().numpy().tobytes()


def test_views_of_the_map_are_read_only(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.bin")
    with open_checkpoint(tmp_path / "x.bin") as checkpoint:
        assert not checkpoint.read("a").flags.writeable


def test_what_was_read_outlives_the_checkpoint(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.bin")
    with open_checkpoint(tmp_path / "x.bin") as checkpoint:
        data = checkpoint.read("a")
    del checkpoint
    assert data.view(np.float32).tolist() == list(range(6))


@pytest.mark.parametrize("mmap", [True, False])
def test_torch_reads_what_we_write(tmp_path: Path, mmap: bool) -> None:
    specs = one_of_each(torch_only=True)
    data = random_bytes(specs)
    write_checkpoint(tmp_path / "x.bin", specs, data.__getitem__)
    loaded = torch.load(tmp_path / "x.bin", weights_only=True, mmap=mmap)
    assert list(loaded) == list(specs)
    with open_checkpoint(loaded) as checkpoint:
        assert_holds(checkpoint, specs, data)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values() if mmap)
    assert all(tensor.is_contiguous() for tensor in loaded.values())


def test_written_archive_has_right_checksums(tmp_path: Path) -> None:
    specs = one_of_each(torch_only=True)
    write_checkpoint(tmp_path / "x.bin", specs, random_bytes(specs).__getitem__)
    with zipfile.ZipFile(tmp_path / "x.bin") as archive:
        assert archive.testzip() is None


def test_torch_saves_again_what_we_wrote(tmp_path: Path) -> None:
    specs = one_of_each(torch_only=True)
    data = random_bytes(specs)
    write_checkpoint(tmp_path / "x.bin", specs, data.__getitem__)
    torch.save(torch.load(tmp_path / "x.bin", weights_only=True), tmp_path / "y.bin")
    with open_checkpoint(tmp_path / "y.bin") as checkpoint:
        assert_holds(checkpoint, specs, data)


def test_ties_are_written_once_and_stay_ties(tmp_path: Path) -> None:
    spec = TensorSpec("F32", (50, 50))
    data = random_bytes({"w": spec})["w"]
    reads: list[str] = []

    def read(name: str) -> Any:
        reads.append(name)
        return data

    write_checkpoint(tmp_path / "x.bin", {"a": spec, "b": spec, "c": spec}, read, ties={"a": "b"})
    assert reads == ["b", "c"]
    assert os.path.getsize(tmp_path / "x.bin") < 3 * spec.nbytes
    with open_checkpoint(tmp_path / "x.bin") as checkpoint:
        assert checkpoint.aliases == {"b": "a"}
        assert_holds(checkpoint, {"a": spec, "b": spec, "c": spec}, dict.fromkeys("abc", data))


@pytest.mark.parametrize("spec", [TensorSpec("F4", (2, 3)), *(TensorSpec(d, (4,)) for d in sorted(TORCHLESS))])  # type: ignore[arg-type]
def test_dtype_that_torch_lacks_points_to_safetensors(tmp_path: Path, spec: TensorSpec) -> None:
    with pytest.raises(OutputError, match="write safetensors instead"):
        write_checkpoint(tmp_path / "x.bin", {"w": spec}, random_bytes({"w": spec}).__getitem__)
    assert list(tmp_path.iterdir()) == []
