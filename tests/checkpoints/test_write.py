import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import BaseMismatchError, OutputError
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec, bits_of

from .helpers import assert_holds, one_of_each, random_bytes, spec_maps

KINDS = ["x.safetensors", "x.bin", "x.pt", "directory"]
SPECS = {"a": TensorSpec("F32", (30, 4)), "b": TensorSpec("BF16", (50,)), "c": TensorSpec("U8", (3,))}
DATA = random_bytes(SPECS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_round_trips(tmp_path: Path, kind: str) -> None:
    specs = one_of_each(torch_only=kind.startswith("x.") and kind != "x.safetensors")
    data = random_bytes(specs)
    write_checkpoint(tmp_path / kind, specs, data.__getitem__)
    with open_checkpoint(tmp_path / kind) as checkpoint:
        assert_holds(checkpoint, specs, data)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(specs=spec_maps(), kind=st.sampled_from(KINDS), shard_bytes=st.integers(1, 300))
def test_any_checkpoint_round_trips(tmp_path: Path, specs: dict[str, TensorSpec], kind: str, shard_bytes: int) -> None:
    data = random_bytes(specs)
    write_checkpoint(tmp_path / kind, specs, data.__getitem__, shard_bytes=shard_bytes, force=True)
    with open_checkpoint(tmp_path / kind) as checkpoint:
        assert_holds(checkpoint, specs, data)
    assert not list(tmp_path.glob(".dtscodec-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_writing_twice_gives_equal_bytes(tmp_path: Path, kind: str) -> None:
    contents = []
    for run in ("1", "2"):
        (tmp_path / run).mkdir()
        write_checkpoint(tmp_path / run / kind, SPECS, DATA.__getitem__, metadata={"b": "1", "a": "2"})
        path = tmp_path / run / kind
        contents.append((path / "model.safetensors" if path.is_dir() else path).read_bytes())
    assert contents[0] == contents[1]


def test_metadata_is_kept(tmp_path: Path) -> None:
    for kind in ("x.safetensors", "directory"):
        write_checkpoint(tmp_path / kind, SPECS, DATA.__getitem__, metadata={"format": "pt"})
        with open_checkpoint(tmp_path / kind) as checkpoint:
            assert checkpoint.metadata == {"format": "pt"}


def test_libraries_read_what_we_write(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    specs = {"w": TensorSpec("F32", (3, 4)), "n": TensorSpec("I64", ()), "e": TensorSpec("F16", (0, 2))}
    data = random_bytes(specs)
    write_checkpoint(tmp_path / "x.safetensors", specs, data.__getitem__)
    for name, array in load_file(tmp_path / "x.safetensors").items():
        assert array.shape == specs[name].shape
        assert array.tobytes() == data[name].tobytes()


def test_tensors_are_aligned_to_their_elements(tmp_path: Path) -> None:
    from dtscodec.format.primitives.safetensors_header import read_header

    specs = one_of_each()
    write_checkpoint(tmp_path / "x.safetensors", specs, random_bytes(specs).__getitem__)
    with open(tmp_path / "x.safetensors", "rb") as file:
        header = read_header(file, "x")
    for entry in header.tensors.values():
        assert (header.data_start + entry.begin) % max(1, bits_of(entry.spec.dtype) // 8) == 0


def test_small_checkpoint_is_one_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, shard_bytes=583)
    assert sorted(os.listdir(tmp_path / "d")) == ["model.safetensors"]


def test_large_checkpoint_is_sharded_with_an_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, shard_bytes=582)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert sorted(os.listdir(tmp_path / "d")) == [*shards, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "d/model.safetensors.index.json").read_text())
    assert index == {"metadata": {"total_size": 583}, "weight_map": {"a": shards[0], "b": shards[0], "c": shards[1]}}


def test_tensor_larger_than_a_shard_has_its_own(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, shard_bytes=110)
    assert len(list((tmp_path / "d").glob("*.safetensors"))) == 2
    with open_checkpoint(tmp_path / "d") as checkpoint:
        assert_holds(checkpoint, SPECS, DATA)


def test_checkpoint_of_no_tensors_round_trips(tmp_path: Path) -> None:
    for kind in KINDS:
        write_checkpoint(tmp_path / kind, {}, DATA.__getitem__)
        with open_checkpoint(tmp_path / kind) as checkpoint:
            assert dict(checkpoint.specs) == {}


def test_transformers_loads_a_sharded_directory(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    model = transformers.BertModel(config)
    with open_checkpoint(model.state_dict()) as source:
        write_checkpoint(
            tmp_path / "d",
            source.specs,
            source.read,
            metadata={"format": "pt"},
            shard_bytes=4000,
            files={"config.json": config.to_json_string().encode()},
        )
    assert (tmp_path / "d/model.safetensors.index.json").exists()
    loaded = transformers.BertModel.from_pretrained(tmp_path / "d")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_small_files_are_written_beside_the_weights(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "1_Pooling/config.json": b'{"a": 1}'}
    write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, files=files)
    assert {name: (tmp_path / "d" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("name", ["../x.json", "/tmp/x.json", "run.py", "model.safetensors.index.json", "a//b.json"])
def test_small_files_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="F1"):
        write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, files={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_single_file_takes_no_small_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files"):
        write_checkpoint(tmp_path / "x.safetensors", SPECS, DATA.__getitem__, files={"a.json": b""})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, BaseMismatchError("base-leaf", "w", "other", "7")])
@pytest.mark.parametrize("when", ["first", "last", "finish"])
def test_nothing_is_left_when_reading_fails(tmp_path: Path, kind: str, error: Any, when: str) -> None:
    reads = 0

    def read(name: str) -> Bytes:
        nonlocal reads
        reads += 1
        if when == "first" or (when == "last" and reads == len(SPECS)):
            raise error
        return DATA[name]

    def finish() -> None:
        assert reads == len(SPECS)
        assert not (tmp_path / kind).exists()
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write_checkpoint(tmp_path / kind, SPECS, read, finish=finish)
    assert list(tmp_path.iterdir()) == []


SLOW_WRITER = """
import sys, time, numpy, pathlib
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.format.dtypes import TensorSpec
def read(name):
    print(name, flush=True)
    time.sleep(60 if name == "w1" else 0)
    return numpy.zeros(100_000, numpy.uint8)
specs = {f"w{i}": TensorSpec("U8", (100_000,)) for i in range(3)}
write_checkpoint(pathlib.Path(sys.argv[1]), specs, read)
"""


@pytest.mark.parametrize("kind", ["x.safetensors", "directory"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", SLOW_WRITER, str(tmp_path / kind)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == ["w0\n", "w1\n"]
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate()[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_existing_output_is_refused_before_any_tensor_is_read(tmp_path: Path, kind: str) -> None:
    def read(name: str) -> Bytes:
        pytest.fail("a tensor was read")

    write_checkpoint(tmp_path / kind, SPECS, DATA.__getitem__)
    for out in (tmp_path / kind, tmp_path / "missing" / kind):
        with pytest.raises(OutputError):
            write_checkpoint(out, SPECS, read)
    with open_checkpoint(tmp_path / kind) as checkpoint:
        assert_holds(checkpoint, SPECS, DATA)


@pytest.mark.parametrize("kind", KINDS)
def test_force_replaces(tmp_path: Path, kind: str) -> None:
    write_checkpoint(tmp_path / kind, SPECS, DATA.__getitem__)
    other = {"z": TensorSpec("F32", (2,))}
    data = random_bytes(other)
    write_checkpoint(tmp_path / kind, other, data.__getitem__, force=True)
    with open_checkpoint(tmp_path / kind) as checkpoint:
        assert_holds(checkpoint, other, data)


def test_force_deletes_no_directory_that_holds_other_things(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, files={"config.json": b"{}"}, shard_bytes=500)
    write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, force=True)
    (tmp_path / "d/train.py").touch()
    with pytest.raises(OutputError, match=r"train\.py"):
        write_checkpoint(tmp_path / "d", SPECS, DATA.__getitem__, force=True)


@pytest.mark.parametrize("kind", KINDS)
def test_input_is_never_the_output(tmp_path: Path, kind: str) -> None:
    write_checkpoint(tmp_path / kind, SPECS, DATA.__getitem__)
    with open_checkpoint(tmp_path / kind) as source:
        assert source.directory
        inputs = [source.directory / name for name in source.weight_files]
        with pytest.raises(OutputError, match="input"):
            write_checkpoint(tmp_path / kind, source.specs, source.read, force=True, inputs=inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(100_000,), (30_000, 30_000, 30_000), (1000,) * 90, (65_500,)])
def test_full_disk_is_one_line_and_leaves_nothing(small_disk: Path, kind: str, sizes: tuple[int, ...]) -> None:
    specs = {f"w{i}": TensorSpec("U8", (n,)) for i, n in enumerate(sizes)}
    with pytest.raises(OutputError) as caught:
        write_checkpoint(
            small_disk / kind,
            specs,
            random_bytes(specs).__getitem__,
            files={} if "." in kind else {"a.json": bytes(5000)},
        )
    assert "No space left" in str(caught.value)
    assert str(caught.value).startswith(str(small_disk / kind))
    assert "\n" not in str(caught.value)
    assert list(small_disk.iterdir()) == []


def test_data_of_another_size_is_refused(tmp_path: Path) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match="expected 480 bytes"):
            write_checkpoint(tmp_path / kind, SPECS, lambda name: np.zeros(5, np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ties", [{"a": "c"}, {"a": "x"}, {"x": "a"}, {"a": "a"}])
def test_ties_must_be_of_equal_spec(tmp_path: Path, ties: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="tied"):
        write_checkpoint(tmp_path / "x.bin", SPECS, DATA.__getitem__, ties=ties)


def test_progress_adds_up_to_all_bytes(tmp_path: Path) -> None:
    for kind in KINDS:
        told: list[int] = []
        write_checkpoint(tmp_path / kind, SPECS, DATA.__getitem__, progress=told.append)
        assert sum(told) == 583
        assert len(told) == 3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_writing_and_reading_stream(tmp_path: Path, kind: str) -> None:
    specs = {f"w{i}": TensorSpec("U8", (2**22,)) for i in range(32)}
    write_checkpoint(tmp_path / f"warm-{kind}", SPECS, DATA.__getitem__)
    used: list[int] = []

    def read(name: str) -> Bytes:
        used.append(anonymous_bytes())
        return np.zeros(2**22, np.uint8)

    write_checkpoint(tmp_path / kind, specs, read)
    with open_checkpoint(tmp_path / kind) as checkpoint:
        for name in specs:
            assert not checkpoint.read(name).any()
            used.append(anonymous_bytes())
    assert max(used) - used[0] < 4 * 2**22


def anonymous_bytes() -> int:
    """Anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
