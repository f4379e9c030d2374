"""``encode --exact``, ``decode --lossy``, ``strip``, ``fold`` and ``series`` on the command line."""

import re
from pathlib import Path

import pytest

from tests.cli.helpers import CODED, PACK, Cli, snapshot

EXACT = ("encode", "base", "movie", "--exact", "-o", "exact.safetensors")


@pytest.fixture
def exact(cli: Cli) -> str:
    """The line about an exact pack, which is in the working directory."""
    return cli(*EXACT, *CODED)


def files(directory: str) -> dict[str, bytes | None]:
    """Contents of a model directory, without code, which never travels."""
    return {name: data for name, data in snapshot(Path(directory)).items() if not name.endswith(".py")}


def test_a_model_comes_back_byte_for_byte(cli: Cli, exact: str) -> None:
    assert re.search(r"movie: .* -> .* \(.*%\), bit for bit, .* without the residual layer", exact)
    cli("decode", "exact.safetensors", "--base", "base", "-o", "out")
    assert files("out") == files("movie")


def test_a_lossy_decode_and_strip_give_what_a_lossy_encode_does(cli: Cli, exact: str) -> None:
    cli("strip", "exact.safetensors", "-o", "stripped.safetensors")
    assert Path("stripped.safetensors").read_bytes() == Path(PACK).read_bytes()
    cli("decode", "exact.safetensors", "--base", "base", "--lossy", "-o", "lossy")
    cli("decode", PACK, "--base", "base", "-o", "plain")
    assert files("lossy") == files("plain")
    assert "without" in cli.fails("strip", PACK, "-o", "again.safetensors")


@pytest.mark.parametrize("options", [("--preset", "none"), ("--preset", "paper"), ("--size", "20kB"), ()])
def test_any_settings_are_exact(cli: Cli, options: tuple[str, ...]) -> None:
    cli(*EXACT, *options)
    cli("decode", "exact.safetensors", "--base", "base", "-o", "out")
    assert files("out") == files("movie")


def test_several_fine_tunes_are_exact_in_a_directory(cli: Cli) -> None:
    cli("encode", "base", "movie", "tweets", "--exact", "--preset", "none", "-o", "packs")
    for task in ("movie", "tweets"):
        cli("decode", f"packs/packs/{task}.safetensors", "--base", "base", "-o", f"out-{task}")
        assert files(f"out-{task}") == files(task)


def test_info_tells_what_each_layer_costs_and_gives(cli: Cli, exact: str) -> None:
    text, document = cli("info", "exact.safetensors"), cli.json("info", "exact.safetensors")
    assert "front" in text
    assert "bit for bit" in text
    assert 0 < document["residual"] < document["size"]
    assert len(document["content"]) == 64
    plain = cli.json("info", PACK)
    assert (plain["residual"], plain["content"]) == (0, None)


def test_verify_decodes_an_exact_pack_with_its_base(cli: Cli, exact: str) -> None:
    assert "content checked" in cli("verify", "exact.safetensors", "--base", "base")
    assert cli.json("verify", "exact.safetensors")["content_checked"] is False


def test_codes_need_a_residual_layer_to_be_left_out(cli: Cli) -> None:
    assert cli.run("encode", "base", "movie", "--preset", "none")[0] == 2
    assert cli.run("encode", "base", "movie", "--exact", "--calibration", "x", "--max-kl", "0.1")[0] == 2


def test_a_chain_is_named_by_its_bases_and_folded(cli: Cli) -> None:
    cli("encode", "base", "movie", "--exact", "--preset", "none", "-o", "one.safetensors")
    cli("decode", "one.safetensors", "--base", "base", "-o", "decoded")
    # A pack of the other fine-tune against what the first one decodes to.
    cli("encode", "decoded", "tweets", "--exact", "--preset", "none", "-o", "two.safetensors")
    cli("decode", "two.safetensors", "--base", "base", "--base", "one.safetensors", "-o", "out", "--no-files")
    cli("fold", "base", "one.safetensors", "two.safetensors", "-o", "folded.safetensors")
    cli("decode", "folded.safetensors", "--base", "base", "-o", "out-folded", "--no-files")
    weights = (Path("tweets") / "model.safetensors").read_bytes()
    assert (Path("out") / "model.safetensors").read_bytes() == weights
    assert (Path("out-folded") / "model.safetensors").read_bytes() == weights
    cli.fails("decode", "two.safetensors", "--base", "base", "-o", "never")


def test_a_series_is_appended_listed_extracted_pruned_and_followed(cli: Cli) -> None:
    for step, save in enumerate(("base", "movie", "tweets")):
        line = cli("series", "append", "run", save, "--step", str(10 * step))
        assert line.startswith(f"step {10 * step}: ")
    assert cli("series", "list", "run").count("step-0000") == 3
    assert [step["base"] for step in cli.json("series", "list", "run")["steps"]] == [None, 0, 10]
    cli("series", "extract", "run", "10", "-o", "out")
    assert files("out") == files("movie")
    cli("series", "prune", "run", "--steps", "10")
    cli("series", "follow", "run", "-o", "live", "--once")
    assert files("live") == files("tweets")
    assert cli("series", "follow", "run", "-o", "live", "--once") == ""
    assert "expected step 10" in cli.fails("series", "extract", "run", "10", "-o", "never")
    assert cli.run("series", "append", "run", "movie", "--step", "5")[0] == 1
