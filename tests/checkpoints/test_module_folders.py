"""Weights in folders of modules, as `modules.json` lists them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtscodec.checkpoints.auxiliary_file import Carried
from dtscodec.checkpoints.auxiliary_files import collect_files
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec

SPECS = {name: TensorSpec("F32", (3,)) for name in ("1_Dense/b", "1_Dense/w", "2_Router/0_D/w", "w")}
DATA = {name: np.full(12, i, np.uint8) for i, name in enumerate(SPECS)}
FOLDERS = ["1_Dense", "2_Router/0_D"]


def modules(directory: Path, *paths: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "modules.json").write_text(json.dumps([{"path": path, "type": "T"} for path in paths]))
    return directory


def router(directory: Path, *folders: str, name: str = "router_config.json") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    content = {"types": dict.fromkeys(folders, "T"), "structure": {"query": list(folders)}}
    (directory / name).write_text(json.dumps(content))


def model(directory: Path) -> Path:
    """A model with weights of its own, in a folder, and in the folder of a router."""
    write_checkpoint(directory, SPECS, DATA.__getitem__, folders=FOLDERS)
    router(directory / "2_Router", "0_D")
    return modules(directory, "", "1_Dense", "2_Router")


def test_folders_are_written_and_read_back(tmp_path: Path) -> None:
    with open_checkpoint(model(tmp_path / "m")) as checkpoint:
        assert dict(checkpoint.specs) == SPECS
        assert {name: checkpoint.read(name).tobytes() for name in SPECS} == {n: d.tobytes() for n, d in DATA.items()}
        assert checkpoint.folders == tuple(FOLDERS)
        assert checkpoint.weight_files == {
            "model.safetensors", "1_Dense/model.safetensors", "2_Router/0_D/model.safetensors",
        }  # fmt: skip
        assert checkpoint.passed_over == ()
        assert checkpoint.signature("w") != checkpoint.signature("1_Dense/w")
    with open_checkpoint(tmp_path / "m/1_Dense") as checkpoint:
        assert list(checkpoint.specs) == ["b", "w"]


def test_a_folder_gets_one_file_whatever_the_size_of_shards(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", SPECS, DATA.__getitem__, folders=["1_Dense"], shard_bytes=12)
    assert [path.name for path in (tmp_path / "m/1_Dense").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "m/model.safetensors.index.json").exists()


def test_a_model_with_weights_in_folders_only_has_none_of_its_own(tmp_path: Path) -> None:
    inner = {name: spec for name, spec in SPECS.items() if "/" in name}
    write_checkpoint(tmp_path / "m", inner, DATA.__getitem__, folders=FOLDERS, metadata={"format": "pt"})
    assert not (tmp_path / "m/model.safetensors").exists()
    router(tmp_path / "m/2_Router", "0_D")
    with open_checkpoint(modules(tmp_path / "m", "1_Dense", "2_Router")) as checkpoint:
        assert dict(checkpoint.specs) == inner
        assert checkpoint.metadata == {"format": "pt"}
        assert checkpoint.location == str(tmp_path / "m")


def test_a_router_lists_its_folders_in_config_json_too(tmp_path: Path) -> None:
    model(tmp_path / "m")
    (tmp_path / "m/2_Router/router_config.json").unlink()
    router(tmp_path / "m/2_Router", "0_D", name="config.json")
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.folders == tuple(FOLDERS)


def test_a_router_that_names_itself_ends(tmp_path: Path) -> None:
    model(tmp_path / "m")
    router(tmp_path / "m/2_Router", "0_D", ".")
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.folders == tuple(FOLDERS)


def test_a_named_index_stands_for_its_directory_with_its_folders(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", SPECS | {"x": SPECS["w"]}, lambda n: DATA.get(n, DATA["w"]), folders=FOLDERS,
                     shard_bytes=12)  # fmt: skip
    modules(tmp_path / "m", "", "1_Dense")
    with open_checkpoint(tmp_path / "m/model.safetensors.index.json") as checkpoint:
        assert checkpoint.folders == ("1_Dense",)
        assert checkpoint.is_directory


@pytest.mark.parametrize("path", ["../1_Dense", "/1_Dense", ".hidden", 3, None, "a\\b"])
def test_a_list_of_modules_that_leads_out_of_the_directory_is_refused(tmp_path: Path, path: Any) -> None:
    model(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"modules\.json: expected"):
        open_checkpoint(modules(tmp_path / "m", path))


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]"])
def test_a_file_of_that_name_that_lists_no_modules_has_none(tmp_path: Path, text: str) -> None:
    model(tmp_path / "m")
    (tmp_path / "m/modules.json").write_text(text)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert list(checkpoint.specs) == ["w"]
        assert [entry.file for entry in checkpoint.passed_over] == ["1_Dense/"]


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_list_of_modules_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    model(tmp_path / "m")
    (tmp_path / "m/modules.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"modules\.json: expected"):
        open_checkpoint(tmp_path / "m")


def test_a_tensor_of_the_model_in_the_name_of_a_folder_is_refused(tmp_path: Path) -> None:
    model(tmp_path / "m")
    write_checkpoint(tmp_path / "m/model.safetensors", SPECS, DATA.__getitem__, force=True)
    with pytest.raises(CheckpointError, match="'1_Dense/b' in a folder only"):
        open_checkpoint(tmp_path / "m")


def test_a_second_file_of_weights_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    model(tmp_path / "m")
    (tmp_path / "m/1_Dense/pytorch_model.bin").write_bytes(b"?")
    with open_checkpoint(tmp_path / "m") as checkpoint:
        (found,) = checkpoint.passed_over
    assert found.file == "1_Dense/pytorch_model.bin"
    assert "loads model.safetensors first" in found.reason


def test_a_folder_that_cannot_be_read_leaves_no_file_open(tmp_path: Path) -> None:
    model(tmp_path / "m")
    (tmp_path / "m/2_Router/0_D/model.safetensors").write_bytes(b"?")
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else None
    with pytest.raises(CheckpointError, match="2_Router/0_D/model"):
        open_checkpoint(tmp_path / "m")
    assert before is None or len(list(Path("/proc/self/fd").iterdir())) == before


def test_tokenizers_and_configurations_of_modules_travel(tmp_path: Path) -> None:
    model(tmp_path / "m")
    names = ["1_Dense/config.json", "1_Dense/vocab.txt", "2_Router/0_D/spiece.model"]
    for name in [*names, "1_Dense/run.py", "other/vocab.txt"]:
        (tmp_path / "m" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "m" / name).write_text("{}")
    found = collect_files(tmp_path / "m", None, frozenset())
    assert [file.name for file in found] == sorted([*names, "2_Router/router_config.json", "modules.json"])
    assert all(isinstance(file, Carried) for file in found)
