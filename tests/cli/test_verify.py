import os
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.cli.helpers import PACK, Cli, flipped, load


def test_a_whole_pack_is_ok(cli: Cli) -> None:
    facts = cli.json("info", PACK)
    line = cli("verify", PACK)
    assert line.startswith(f"{PACK}: ok, ")
    assert line.endswith(f" 8 tensors, id {facts['id']}\n")


def test_the_base_is_checked_too(cli: Cli) -> None:
    assert ", base checked, " in cli("verify", PACK, "--base", "base")
    assert ", base checked, " in cli("verify", PACK, "--base", "base/model.safetensors")


def test_json(cli: Cli) -> None:
    facts = {
        "path": PACK,
        "id": cli.json("info", PACK)["id"],
        "size": Path(PACK).stat().st_size,
        "tensors": 8,
        "content_checked": False,
    }
    assert cli.json("verify", PACK) == facts | {"base_checked": False}
    assert cli.json("verify", PACK, "--base", "base") == facts | {"base_checked": True}


def test_only_base_tensors_that_are_used_matter(cli: Cli) -> None:
    base = load("base/model.safetensors")
    base["pooler.weight"] += 1
    save_file(base, "base/model.safetensors")
    cli("verify", PACK, "--base", "base")


def test_the_system_may_read_in_pieces(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:100]], offset))
    cli("verify", PACK)


@pytest.mark.parametrize("name", ["encoder.weight", "frozen.weight", "embeddings.weight"])
def test_another_base_is_found(cli: Cli, name: str) -> None:
    base = load("base/model.safetensors")
    base[name][0] += 1
    save_file(base, "other.safetensors")
    assert cli.fails("verify", PACK, "--base", "other.safetensors").startswith(
        f"base-leaf: other.safetensors: '{name}'"
    )


def test_damage_is_found_and_tells_where(cli: Cli) -> None:
    size = Path(PACK).stat().st_size
    with flipped(Path(PACK), size - 1):
        line = cli.fails("verify", PACK)
        assert line.startswith(f"checksum: {PACK}: bytes ")
        assert f" to {size} differ" in line
        cli.fails("verify", PACK, "--json")
