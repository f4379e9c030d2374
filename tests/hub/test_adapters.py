"""Adapters on the Hub are imported like local ones; what cannot be is one line."""

import shutil
from pathlib import Path

import pytest

import dtscodec
from dtscodec.errors import CheckpointError, OutputError
from tests.adapters.helpers import train
from tests.cli.helpers import Cli, snapshot
from tests.fakes.hub.server import LoopbackHub


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter."""
    return train("bert", tmp_path_factory.mktemp("lora")).folder


@pytest.fixture
def there(cli: Cli, hub: LoopbackHub, lora: Path) -> LoopbackHub:
    """The Hub with both, which are in `lora` here."""
    shutil.copytree(lora, "lora")
    for repo, folder in (("me/bert", "base"), ("me/lora", "adapter")):
        hub.create(repo)
        hub.commit(repo, {path.name: path.read_bytes() for path in Path("lora", folder).iterdir()})
    return hub


def test_an_adapter_on_the_hub_is_imported_as_a_local_one(cli: Cli, there: LoopbackHub) -> None:
    cli("import", "hf://me/lora", "--base", "hf://me/bert", "-o", "a")
    cli("import", "lora/adapter", "--base", "lora/base", "-o", "b")
    with dtscodec.open("a") as pack:
        assert pack.summary.base is not None
        assert pack.summary.base.repo == "me/bert"
    cli("decode", "a", "-o", "out-a")
    cli("decode", "b", "--base", "lora/base", "-o", "out-b")
    assert snapshot(Path("out-a")) == snapshot(Path("out-b"))
    there.requests.clear()
    cli("import", "hf://me/lora", "--base", "lora/base", "-o", "c")
    assert not any("adapter_model" in log.path for log in there.requests)  # It is in the cache.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf://me/none", "no such repository, or a private one"),
        ("hf://me/lora@nowhere", "no such branch, tag or commit"),
        ("hf://me/bert", "expected the directory of an adapter"),
        ("hf://me/lora/nothing", "expected the directory of an adapter"),
        ("hf://me", "expected hf://user/repo"),
    ],
)
def test_what_is_no_adapter_there_is_one_line(cli: Cli, there: LoopbackHub, name: str, reason: str) -> None:
    line = cli.fails("import", name, "--base", "lora/base", "-o", "out")
    assert line.startswith(name.removesuffix("/nothing"))
    assert reason in line
    if "expected hf" not in reason:
        with pytest.raises(CheckpointError):
            dtscodec.import_adapter(name, "lora/base", "out")


def test_an_adapter_whose_transfer_fails_is_one_line(
    cli: Cli, there: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    there.fail("/me/lora/", status=500, times=99)
    assert cli.fails("import", "hf://me/lora", "--base", "lora/base", "-o", "out").startswith("hf://me/lora")


def test_the_hub_is_no_output_of_import_export_and_report(cli: Cli, there: LoopbackHub) -> None:
    cli("import", "lora/adapter", "--base", "lora/base", "-o", "pack")
    output = "hf://me/out/page.html"
    for command in (["import", "lora/adapter", "--base", "lora/base"], ["report", "pack"]):
        assert cli.fails(*command, "-o", output) == (
            f"{output}: expected a path to write to, got the Hub; write here, then use dtscodec push"
        )
    line = cli.fails("export", "pack", "--to", "peft", "--base", "lora/base", "-o", output)
    assert line.startswith(f"{output}: expected a local path")
    with pytest.raises(OutputError):
        dtscodec.import_adapter("lora/adapter", "lora/base", output)
