"""Bases on the Hub: what a pack remembers of them, and how they are found again."""

import json
from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.storage import hub_tree
from tests.cli.helpers import CODED, Cli, base_tensors, load, snapshot
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import uploads_large_files

pytestmark = uploads_large_files


def remembered(path: str) -> str | None:
    """The repository of the base that a pack remembers."""
    with dtscodec.open(path) as pack:
        assert pack.summary.base is not None
        return pack.summary.base.repo


@pytest.fixture
def torch_base(cli: Cli, hub: LoopbackHub) -> str:
    """The base as a repository whose weights are torch's."""
    torch.save(base_tensors(), "weights.bin")
    hub.create("me/torch")
    files = {path.name: path.read_bytes() for path in Path("base").iterdir() if path.suffix != ".safetensors"}
    hub.commit("me/torch", {**files, "pytorch_model.bin": Path("weights.bin").read_bytes()})
    return "hf://me/torch"


@pytest.mark.parametrize("file", ["", "/pytorch_model.bin"])
def test_a_base_of_torchs_is_remembered_with_its_small_files(cli: Cli, torch_base: str, file: str) -> None:
    cli.run("encode", torch_base + file, "movie", "-o", "a")
    assert remembered("a") == "me/torch"
    cli("encode", "base", "movie", "-o", "b")
    with dtscodec.open("a") as ours, dtscodec.open("b") as local:
        assert ours.index.files == local.index.files
    cli("decode", "a", "-o", "out-a")
    cli("decode", "b", "--base", "base", "-o", "out-b")
    assert snapshot(Path("out-a")) == snapshot(Path("out-b"))


def test_a_damaged_base_of_torchs_is_told_by_its_name_on_the_hub(cli: Cli, hub: LoopbackHub, torch_base: str) -> None:
    hub.commit("me/torch", {"pytorch_model.bin": b"PK nothing"})
    assert cli.fails("encode", torch_base, "movie", "-o", "a").startswith("hf://me/torch@")


@pytest.mark.parametrize(
    ("name", "is_remembered"),
    [("hf://me/base", True), ("hf://me/base/model.safetensors", True), ("hf://me/base/other.safetensors", False)],
)
def test_a_base_is_remembered_if_its_repository_opens_it(
    cli: Cli, hub: LoopbackHub, name: str, is_remembered: bool
) -> None:
    hub.commit("me/base", {"other.safetensors": Path("tweets/model.safetensors").read_bytes()})
    cli.run("encode", name, "movie", "-o", "pack", "--no-files", *CODED)
    assert (remembered("pack") == "me/base") == is_remembered
    if is_remembered:
        cli("decode", "pack", "-o", "out")
    else:
        assert "--base" in cli.fails("decode", "pack", "-o", "out")
        cli("decode", "pack", "--base", name, "-o", "out")


def test_the_only_file_of_a_repository_is_what_it_opens(cli: Cli, hub: LoopbackHub) -> None:
    hub.create("me/single")
    hub.commit("me/single", {"weights.safetensors": Path("base/model.safetensors").read_bytes()})
    cli.run("encode", "hf://me/single/weights.safetensors", "movie", "-o", "pack", "--no-files", *CODED)
    assert remembered("pack") == "me/single"


def test_the_index_of_the_repository_names_the_base_of_a_pack_further_down(cli: Cli, hub: LoopbackHub) -> None:
    cli("encode", "base", "movie", "-o", "pack")
    hub.create("me/packs")
    path, pack = "packs/a/b/movie.safetensors", Path("pack").read_bytes()
    with dtscodec.open("pack") as opened:
        listed = {"a/b/movie": {"file": path, "size": len(pack), "id": opened.id}}
    index = json.dumps({"version": 1, "packs": listed, "base": "hf://me/base"}).encode()
    hub.commit("me/packs", {path: pack, "dtscodec.json": index})
    hub_tree.clear_listings()
    for number, name in enumerate(("a/b/movie", path)):
        cli("decode", f"hf://me/packs/{name}", "-o", f"out-{number}")
    cli("decode", "pack", "--base", "base", "-o", "local")
    assert load("out-0/model.safetensors").keys() == load("local/model.safetensors").keys()
    assert snapshot(Path("out-0")) == snapshot(Path("out-1")) == snapshot(Path("local"))


def test_a_file_is_restored_as_a_change_of_the_bases_on_the_hub(cli: Cli, hub: LoopbackHub) -> None:
    theirs, ours = (json.dumps({"truncation": x, "vocab": [f"{i:x}" for i in range(3000)]}) for x in (None, "right"))
    hub.commit("me/base", {"tokenizer.json": theirs.encode()})
    hub_tree.clear_listings()
    Path("movie/tokenizer.json").write_text(ours)
    cli.run("encode", "hf://me/base", "movie", "-o", "pack")
    assert "tokenizer.json: stored as a change of the base's" in cli("info", "pack")
    cli("decode", "pack", "-o", "out")
    assert Path("out/tokenizer.json").read_text() == ours
    # The pack names the commit that it was made against; a later one has another file.
    hub.commit("me/base", {"tokenizer.json": b"{}"})
    hub_tree.clear_listings()
    cli("decode", "pack", "-o", "again")
    assert snapshot(Path("again")) == snapshot(Path("out"))
    message = cli.fails("decode", "pack", "--base", "hf://me/base", "-o", "later")
    assert "tokenizer.json: expected a file of SHA-256" in message
    assert "--no-files" in message
