"""Model directories on the Hub are opened as those on disk: variants, indexes, folders of modules."""

import json
from pathlib import Path

import numpy as np
import pytest

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.storage import hub_tree
from tests.fakes.hub.server import LoopbackHub

SPECS = {name: TensorSpec("F32", (3,)) for name in ("1_Dense/w", "a", "b")}


def commit(hub: LoopbackHub, directory: Path) -> str:
    files = {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    hub.create("me/model")
    hub.commit("me/model", files)
    hub_tree.clear_listings()
    return "hf://me/model"


def assert_alike(name: str, directory: Path) -> None:
    with open_checkpoint(name) as there, open_checkpoint(directory) as here:
        assert there.specs == here.specs == SPECS
        assert {n: there.read(n).tobytes() for n in SPECS} == {n: here.read(n).tobytes() for n in SPECS}
        assert (there.stem, there.folders, there.weight_files) == (here.stem, here.folders, here.weight_files)
        assert there.passed_over == here.passed_over


@pytest.mark.parametrize("stem", ["model", "model.fp16", "diffusion_pytorch_model.bf16"])
@pytest.mark.parametrize("shard_bytes", [12, 10**9])
def test_a_repository_is_read_as_its_directory(hub: LoopbackHub, tmp_path: Path, stem: str, shard_bytes: int) -> None:
    def read(name: str) -> np.ndarray:
        return np.full(12, ord(name[-1]), np.uint8)

    write_checkpoint(tmp_path / "m", SPECS, read, stem=stem, folders=["1_Dense"], shard_bytes=shard_bytes)
    (tmp_path / "m/modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Dense"}]))
    (tmp_path / "m/onnx").mkdir()
    for other in ("consolidated.safetensors", "onnx/model.onnx", "README.md"):
        (tmp_path / "m" / other).write_bytes(b"?")
    name = commit(hub, tmp_path / "m")
    assert_alike(name, tmp_path / "m")
    if shard_bytes == 12:
        (index,) = [path.name for path in (tmp_path / "m").glob("*.index.*")]
        assert_alike(f"{name}/{index}", tmp_path / "m" / index)


def test_a_repository_without_weights_is_named_for_what_it_is(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "m/unet").mkdir(parents=True)
    (tmp_path / "m/model_index.json").write_text("{}")
    (tmp_path / "m/unet/diffusion_pytorch_model.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"pipeline of diffusers with unet; .*hf://me/model@\w{40}/unet"):
        open_checkpoint(commit(hub, tmp_path / "m"))


def test_an_adapter_on_the_hub_is_named(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/adapter_model.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointError, match="an adapter; import it"):
        open_checkpoint(commit(hub, tmp_path / "m"))
