"""Inputs and outputs in remote storage: the same packs as with local ones, each tensor transferred once."""

import json
import sys
from pathlib import Path

import pytest

import dtscodec
from dtscodec import EncodeConfig
from tests.cli.helpers import Cli, snapshot
from tests.fakes.s3_server import LoopbackS3
from tests.storage.helpers import objects, put

PAIRS = [("base", "movie"), ("base/model.safetensors.index.json", "tweets.safetensors")]


def weight_bytes(models: Path, *names: str) -> int:
    """Bytes of the files of weights of these models."""
    places = [models / name for name in names]
    files = [file for place in places for file in ([place] if place.is_file() else place.glob("*.safetensors"))]
    return sum(file.stat().st_size for file in files)


@pytest.mark.parametrize(("base", "fine"), PAIRS)
def test_a_pack_of_remote_models_is_that_of_local_ones(
    cli: Cli, models: Path, bucket: str, base: str, fine: str
) -> None:
    cli("encode", f"{models}/{base}", f"{models}/{fine}", "-o", "local")
    cli("encode", f"s3://models/{base}", f"s3://models/{fine}", "-o", "remote")
    cli("encode", f"s3://models/{base}", f"s3://models/{fine}", "-o", f"{bucket}/a/b")
    local = Path("local").read_bytes()
    assert Path("remote").read_bytes() == local
    assert objects(bucket) == {"a/b": local}
    assert sorted(snapshot(Path())) == ["local", "remote", "temp"]


def test_one_side_may_be_remote_and_the_other_local(cli: Cli, models: Path, server: LoopbackS3) -> None:
    packs = []
    for base, fine in (("s3://models", models), (models, "s3://models"), (models, models)):
        cli("encode", f"{base}/base", f"{fine}/movie", "-o", "out", "--force")
        packs.append(Path("out").read_bytes())
    assert packs[0] == packs[1] == packs[2]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_several_fine_tunes_fetch_base_and_all_once(
    cli: Cli, models: Path, server: LoopbackS3, bucket: str, workers: str
) -> None:
    cli("encode", f"{models}/base", f"{models}/movie", f"{models}/tweets.safetensors", "-o", "local")
    server.reset()
    sources = ("s3://models/base", "s3://models/movie", "s3://models/tweets.safetensors")
    cli("encode", *sources, "-o", f"{bucket}/packs-of-mine/", "--workers", workers)
    assert server.sent <= 1.05 * weight_bytes(models, "base", "movie", "tweets.safetensors")
    names = ("dtscodec.json", "packs/movie.safetensors", "packs/tweets.safetensors")
    assert objects(bucket) == {f"packs-of-mine/{name}": (Path("local") / name).read_bytes() for name in names}


def test_a_remote_directory_keeps_the_packs_it_lists_and_names_a_base_within(
    cli: Cli, models: Path, bucket: str
) -> None:
    put(f"{bucket}/bases/a.safetensors", (models / "tweets.safetensors").read_bytes())
    for base, name in ((f"{bucket}/bases/a.safetensors", "movie"), ("s3://models/base", "tweets.safetensors")):
        cli("encode", base, f"s3://models/{name}", "-o", bucket, "--rank", "2")
    index = json.loads(objects(bucket)["dtscodec.json"])
    assert (sorted(index["packs"]), index["base"]) == (["movie", "tweets"], "bases/a.safetensors")


@pytest.mark.parametrize("preset", [dtscodec.Best(), dtscodec.Paper()])
def test_an_encode_transfers_each_tensor_once(
    models: Path, work: Path, server: LoopbackS3, preset: dtscodec.Best | dtscodec.Paper
) -> None:
    config = EncodeConfig(preset=preset)
    dtscodec.encode("s3://models/base", "s3://models/movie", work / "out", config)
    assert weight_bytes(models, "base", "movie") <= server.sent <= 1.05 * weight_bytes(models, "base", "movie")
    assert sorted(snapshot(work)) == ["out", "temp"]


def test_a_report_names_the_remote_pack(work: Path, bucket: str) -> None:
    report = dtscodec.encode(
        "s3://models/base", "s3://models/movie", f"{bucket}/movie", EncodeConfig(target=dtscodec.Rank(1))
    )
    assert str(report.path) == f"{bucket}/movie"
    assert report.pack_bytes == len(objects(bucket)["movie"])


def test_a_pack_is_decoded_against_a_remote_base(cli: Cli, models: Path, server: LoopbackS3) -> None:
    cli("encode", f"{models}/base", f"{models}/movie", "-o", "pack", "--rank", "2")
    server.reset()
    cli("decode", "pack", "--base", "s3://models/base", "-o", "remote")
    cli("decode", "pack", "--base", f"{models}/base", "-o", "local")
    assert snapshot(Path("remote")) == snapshot(Path("local"))
    assert server.sent <= 1.05 * weight_bytes(models, "base")


def test_a_remote_pack_is_read_by_range_and_decoded(cli: Cli, models: Path, bucket: str, server: LoopbackS3) -> None:
    cli("encode", f"{models}/base", f"{models}/movie", "-o", "pack", "--raw", "*", "--no-files")
    cli("encode", f"{models}/base", f"{models}/movie", "-o", f"{bucket}/pack", "--raw", "*", "--no-files")
    cli("decode", "pack", "--base", f"{models}/base", "-o", "local")
    server.reset()
    info = cli.json("info", f"{bucket}/pack")
    assert info["id"] == cli.json("info", "pack")["id"]
    assert server.sent <= 2**18 < info["size"]
    cli("verify", f"{bucket}/pack")
    cli("decode", f"{bucket}/pack", "--base", f"{models}/base", "-o", "remote")
    assert snapshot(Path("remote")) == snapshot(Path("local"))
    assert "s3://own/none: expected to read it" in cli.fails("info", f"{bucket}/none")


def test_file_urls_are_local_paths_and_need_no_extra(
    cli: Cli, models: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("upath", "fsspec", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    cli("encode", f"file://{models}/base", f"file://{models}/movie", "-o", f"file://{work}/out")
    cli("encode", f"{models}/base", f"{models}/movie", "-o", "local")
    assert Path("out").read_bytes() == Path("local").read_bytes()
