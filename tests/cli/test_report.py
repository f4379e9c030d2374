"""``dtscodec report``."""

from pathlib import Path

import pytest

from dtscodec.report.browser import find_browser
from tests.cli.helpers import CODED, PACK, Cli


def test_it_writes_a_page_and_says_so(cli: Cli) -> None:
    assert cli("report", PACK, "-o", "out.html").endswith(" tensors: out.html\n")
    assert Path("out.html").read_text().startswith("<!DOCTYPE html>")
    assert "relative error" not in Path("out.html").read_text()


def test_with_the_fine_tune_it_tells_errors(cli: Cli) -> None:
    cli("report", PACK, "--fine-tune", "movie", "--base", "base", "-o", "out.html")
    assert "relative error" in Path("out.html").read_text()
    facts = cli.json("report", PACK, "--fine-tune", "movie", "--base", "base")
    compared = cli.json("compare", PACK, "movie", "--base", "base")
    assert facts["closeness"]["error"] == compared["relative_error"]


def test_json_needs_no_output_and_agrees_with_info(cli: Cli) -> None:
    facts, info = cli.json("report", PACK), cli.json("info", PACK)
    for key in ("id", "task", "encoder", "size", "parameters", "fine_tune_size", "base", "absent", "claim"):
        assert facts[key] == info[key]
    assert cli.json("report", PACK, "-o", "out.html") == facts
    assert Path("out.html").is_file()


def test_a_directory_of_packs(cli: Cli) -> None:
    cli("encode", "base", "movie", "tweets", "-o", "packs-of-mine", *CODED)
    assert cli("report", "packs-of-mine", "-o", "out.html").endswith(", 2 packs: out.html\n")
    assert set(cli.json("report", "packs-of-mine")["packs"]) == {"movie", "tweets"}
    assert "one pack" in cli.misused("report", "packs-of-mine", "-o", "other.html", "--fine-tune", "movie")


def test_an_output_is_never_replaced_without_force(cli: Cli) -> None:
    Path("out.html").write_text("mine")
    assert "--force" in cli.fails("report", PACK, "-o", "out.html")
    cli("report", PACK, "-o", "out.html", "--force")
    assert Path("out.html").read_text() != "mine"


def test_the_pack_is_never_replaced(cli: Cli) -> None:
    Path("pack.html").write_bytes(Path(PACK).read_bytes())
    assert "apart from the input" in cli.fails("report", "pack.html", "-o", "pack.html", "--force")


@pytest.mark.parametrize("options", [[], ["-o", "out.pdf"], ["-o", "out"], ["-o", "out.html", "--json=x"]])
def test_wrong_usage(cli: Cli, options: list[str]) -> None:
    cli.misused("report", PACK, *options)


@pytest.mark.parametrize("pack", ["missing", "base", "base/model.safetensors"])
def test_what_is_no_pack_fails_and_leaves_nothing(cli: Cli, pack: str) -> None:
    cli.fails("report", pack, "-o", "out.html")


def test_another_fine_tune_or_base_fails(cli: Cli) -> None:
    cli.fails("report", PACK, "-o", "out.html", "--fine-tune", "base", "--base", "base")
    cli.fails("report", PACK, "-o", "out.html", "--fine-tune", "movie", "--base", "movie")
    cli.fails("report", PACK, "-o", "out.html", "--fine-tune", "movie")


def test_a_picture_without_a_browser_fails_and_leaves_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "apt-get install chromium" in cli.fails("report", PACK, "-o", "out.png")


@pytest.mark.skipif(find_browser() is None, reason="needs a browser")
def test_a_picture(cli: Cli) -> None:
    cli("report", PACK, "-o", "out.png")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
