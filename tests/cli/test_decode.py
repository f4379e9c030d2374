import json
import re
from pathlib import Path

import pytest
import torch

import dtscodec
from tests.cli.helpers import PACK, Cli, assert_equal, fine_tensors, load, snapshot


@pytest.fixture
def decoded(work: Path) -> dict[str, torch.Tensor]:
    """What the library decodes."""
    with dtscodec.decode(PACK, "base") as tensors:
        return dict(tensors)


def test_last_line_tells_name_sizes_time_and_path(cli: Cli) -> None:
    line = cli("decode", PACK, "--base", "base", "-o", "out.safetensors")
    assert re.fullmatch(r"movie: \S+ kB -> \S+ kB, 8 tensors, \d+\.\d s: out\.safetensors\n", line)


def test_to_one_safetensors_file(cli: Cli, work: Path, decoded: dict[str, torch.Tensor]) -> None:
    before = set(snapshot(work))
    cli("decode", PACK, "--base", "base", "-o", "out.safetensors")
    assert set(snapshot(work)) - before == {"out.safetensors"}
    assert_equal(load("out.safetensors"), decoded)
    specs = {name: (t.dtype, t.shape) for name, t in fine_tensors(11).items()}
    assert {name: (t.dtype, t.shape) for name, t in decoded.items()} == specs


def test_what_is_not_coded_is_exact(decoded: dict[str, torch.Tensor]) -> None:
    exact = ["classifier.weight", "frozen.weight", "steps"]
    fine = fine_tensors(11)
    assert_equal({name: decoded[name] for name in exact}, {name: fine[name] for name in exact})
    untouched = torch.ones(60, dtype=torch.bool)
    untouched[7:19] = False
    assert torch.equal(decoded["embeddings.weight"][untouched], fine["embeddings.weight"][untouched])


@pytest.mark.parametrize("name", ["out.bin", "out.pt", "out.pth"])
def test_to_one_file_of_torch(cli: Cli, decoded: dict[str, torch.Tensor], name: str) -> None:
    cli("decode", PACK, "--base", "base", "-o", name)
    assert_equal(torch.load(name, weights_only=True), decoded)


def test_to_a_directory_with_the_files_that_travel(cli: Cli, work: Path, decoded: dict[str, torch.Tensor]) -> None:
    cli("decode", PACK, "--base", "base", "-o", "out")
    assert sorted(snapshot(work / "out")) == ["config.json", "model.safetensors", "vocab.txt"]
    assert (work / "out/config.json").read_bytes() == (work / "movie/config.json").read_bytes()
    assert (work / "out/vocab.txt").read_bytes() == (work / "base/vocab.txt").read_bytes()
    assert_equal(load("out/model.safetensors"), decoded)


def test_no_files(cli: Cli, work: Path) -> None:
    cli("decode", PACK, "--base", "base/model.safetensors", "-o", "out", "--no-files")
    assert sorted(snapshot(work / "out")) == ["model.safetensors"]


def test_a_file_beside_the_base_is_checked(cli: Cli) -> None:
    Path("base/vocab.txt").write_text("a\nb\nd\n")
    line = cli.fails("decode", PACK, "--base", "base", "-o", "out")
    assert line.startswith("base-file: base/vocab.txt: expected")
    assert "--no-files" in line
    Path("base/vocab.txt").unlink()
    assert cli.fails("decode", PACK, "--base", "base", "-o", "out").startswith("base-file: base/vocab.txt: expected")
    cli("decode", PACK, "--base", "base", "-o", "out.safetensors")


def test_sharded(cli: Cli, work: Path, decoded: dict[str, torch.Tensor]) -> None:
    cli("decode", PACK, "--base", "base", "-o", "out", "--shard-size", "7kB")
    index = json.loads((work / "out/model.safetensors.index.json").read_text())
    shards = sorted((work / "out").glob("*.safetensors"))
    count = len(shards)
    assert count > 2
    assert [path.name for path in shards] == [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    loaded = {path.name: load(path) for path in shards}
    assert index["weight_map"] == {name: file for file, tensors in loaded.items() for name in tensors}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in decoded.values())
    assert all(sum(t.nbytes for t in tensors.values()) <= 7000 for tensors in loaded.values())
    assert_equal({name: t for tensors in loaded.values() for name, t in tensors.items()}, decoded)


def test_a_sharded_output_is_an_input(cli: Cli) -> None:
    cli("decode", PACK, "--base", "base", "-o", "whole")
    cli("decode", PACK, "--base", "base", "-o", "sharded", "--shard-size", "4kB")
    packs = []
    for source in ("whole", "sharded"):
        cli("encode", "base", f"same={source}", "-o", source + ".pack")
        packs.append(Path(source + ".pack").read_bytes())
    assert packs[0] == packs[1]


def test_a_sharded_base(cli: Cli, decoded: dict[str, torch.Tensor]) -> None:
    cli("encode", "base", "base", "-o", "itself")
    cli("decode", "itself", "--base", "base", "-o", "sharded", "--shard-size", "5kB")
    cli("decode", PACK, "--base", "sharded", "-o", "out.safetensors")
    assert_equal(load("out.safetensors"), decoded)


@pytest.mark.parametrize("size", ["0", "-1", "x", "5XB", "0.0001", "9" * 400, "1e3"])
def test_a_shard_size_out_of_range_is_misuse(cli: Cli, size: str) -> None:
    assert "expected a size" in cli.misused("decode", PACK, "-o", "out", f"--shard-size={size}")


@pytest.mark.parametrize(
    ("option", "dtype"),
    [("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32), ("f64", torch.float64)],
)
def test_dtype_touches_floats_only(cli: Cli, decoded: dict[str, torch.Tensor], option: str, dtype: torch.dtype) -> None:
    cli("decode", PACK, "--base", "base", "-o", "out.safetensors", "--dtype", option)
    expected = {name: t.to(dtype) if t.is_floating_point() else t for name, t in decoded.items()}
    assert_equal(load("out.safetensors"), expected)


def test_file_metadata_comes_back(cli: Cli) -> None:
    from safetensors import safe_open

    cli("decode", PACK, "--base", "base", "-o", "out.safetensors")
    with safe_open("out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    "command", [["decode", "-o", "out"], ["decode", "-o", "out.safetensors"], ["compare", "movie"]]
)
def test_the_base_is_found_by_the_index_beside_the_pack(cli: Cli, command: list[str]) -> None:
    cli("encode", "base", "movie", "tweets", "-o", ".")
    cli(command[0], "packs/movie.safetensors", *command[1:])


def test_the_base_is_found_from_within_the_packs_directory(
    cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("encode", "base", "movie", "tweets", "-o", ".")
    monkeypatch.chdir(work / "packs")
    cli("decode", "movie.safetensors", "-o", "../out.safetensors")


@pytest.mark.parametrize("out", ["out", "out.safetensors", "out.bin"])
def test_without_a_base_the_error_says_how_to_name_it(cli: Cli, out: str) -> None:
    line = cli.fails("decode", PACK, "-o", out)
    assert "base" in line
    assert "--base" in line


def test_a_base_that_the_index_names_must_be_there(cli: Cli) -> None:
    cli("encode", "base", "movie", "tweets", "-o", ".")
    Path("base").rename("elsewhere")
    assert cli.fails("decode", "packs/movie.safetensors", "-o", "out").endswith(
        "base: expected a checkpoint, got nothing of that name"
    )
    cli("decode", "packs/movie.safetensors", "--base", "elsewhere", "-o", "out")


@pytest.mark.parametrize("device", ["nonsense", "meta", "", "hpu", "cuda:99", "mps"])
def test_a_device_that_is_not_there(cli: Cli, device: str) -> None:
    line = cli.fails("decode", PACK, "--base", "base", "-o", "out", "--device", device)
    assert line.startswith(f"device '{device}': expected")
    assert len(line) < 400


def test_an_output_that_exists_is_refused_unless_forced(cli: Cli, work: Path) -> None:
    for out in ("out", "out.safetensors", "out.bin"):
        cli("decode", PACK, "--base", "base", "-o", out)
        made = snapshot(work)
        assert "--force" in cli.fails("decode", PACK, "--base", "base", "-o", out)
        cli("encode", "base", "tweets", "--force")
        cli("decode", "tweets.dts.safetensors", "--base", "base", "-o", out, "--force")
        changed = {name for name, data in snapshot(work).items() if made.get(name) != data}
        assert (
            changed
            == {
                "out": {"out/model.safetensors", "out/config.json", "tweets.dts.safetensors"},
                "out.safetensors": {"out.safetensors"},
                "out.bin": {"out.bin"},
            }[out]
        )


def test_an_empty_directory_is_filled(cli: Cli) -> None:
    Path("out").mkdir()
    cli("decode", PACK, "--base", "base", "-o", "out")
    assert Path("out/model.safetensors").is_file()


def test_output_is_required(cli: Cli) -> None:
    assert "-o" in cli.misused("decode", PACK, "--base", "base")
