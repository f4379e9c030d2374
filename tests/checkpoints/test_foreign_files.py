"""Files of other programs are named for what they are, with a remedy."""

import re
from pathlib import Path

import pytest
import torch

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError

FILES = {
    "m.gguf": (b"GGUF\3\0\0\0" + bytes(99), r"only llama\.cpp reads; load it with transformers' .*gguf_file"),
    "blob": (b"GGUF\3\0\0\0" + bytes(99), r"only llama\.cpp reads"),
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), r"only TensorFlow reads; .*from_tf=True"),
    "flax_model.msgpack": (b"\x81\xa6params" + bytes(99), r"only Flax reads; .*from_flax=True"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(99), r"only ONNX reads; take the checkpoint"),
    "page.safetensors": (b"<!DOCTYPE html><html>" * 9, r"a web page; download the file again"),
    "config.json": (b'{"model_type": "llama"}', r"got text; name the model's directory"),
    "modeling.py": (b"import torch" * 99, r"got text; name the model's directory"),
    "page.bin": (b"\n<html>" * 9, r"a web page"),
    "__0_0.distcp": (b"PK\3\4" + bytes(99), r"a shard of torch\.distributed; name its directory"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_program_is_named(tmp_path: Path, name: str) -> None:
    data, message = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_shard_of_deepspeed_is_named(tmp_path: Path) -> None:
    torch.save({"module": {"w": torch.zeros(2)}, "ds_version": "0.17"}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match=r"a shard of DeepSpeed; merge its directory with .*zero_to_fp32\.py"):
        open_checkpoint(tmp_path / "mp_rank_00_model_states.pt")


def test_other_damage_keeps_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(bytes(3))
    with pytest.raises(CheckpointError, match="cut off"):
        open_checkpoint(tmp_path / "x.safetensors")


def test_broken_links_and_the_state_of_a_training_are_named(tmp_path: Path) -> None:
    (tmp_path / "optimizer.pt").write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"only the state of a training: optimizer\.pt"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").symlink_to("../blobs/gone")
    with pytest.raises(CheckpointError, match=r"broken links: model\.safetensors; download"):
        open_checkpoint(tmp_path)
