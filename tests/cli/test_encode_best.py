"""`encode` with the preset `best`: what the pack is to be like, and which wishes are none."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

import dtscodec
from dtscodec.encoding.targets import Size
from tests.cli.helpers import PACK, Cli, load, snapshot

pytestmark = pytest.mark.slow


def fine_bytes() -> int:
    return sum(tensor.nbytes for tensor in load("movie/model.safetensors").values())


def parameters() -> int:
    return sum(tensor.numel() for tensor in load("movie/model.safetensors").values())


def test_the_preset_is_best_unless_another_is_named(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a")
    cli("encode", "base", "movie", "-o", "b", "--preset", "best")
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert "preset=best" in cli.json("info", "a")["encoder"]
    cli("encode", "base", "movie", "-o", "c", "--preset", "paper")
    assert "preset=paper rank=0.1" in cli.json("info", "c")["encoder"]


@pytest.mark.parametrize("text", ["3000", "3000B", "3kB", "0.003MB", "15%", "3.5bpp"])
def test_the_file_is_at_most_as_large_as_the_size_in_any_unit(cli: Cli, text: str) -> None:
    cli("encode", "base", "movie", "-o", "a", "--size", text)
    asked = Size.parse(text).in_bytes(fine_bytes(), parameters())
    assert 0.95 * asked < Path("a").stat().st_size <= asked


def test_a_size_in_percent_is_the_one_that_the_last_line_tells(cli: Cli) -> None:
    line = cli("encode", "base", "movie", "-o", "a", "--size", "15%")
    share = re.search(r"\((\d+\.\d\d) %\)", line)
    assert share
    assert 14.5 < float(share[1]) <= 15


@pytest.mark.parametrize("error", ["0.8", "0.3", ".05", "1e-3"])
def test_the_delta_has_at_most_the_error(cli: Cli, error: str) -> None:
    cli("encode", "base", "movie", "-o", "a", "--error", error, "--raw", "half*", "--raw", "classifier*")
    measured = cli.json("compare", "a", "movie", "--base", "base")["relative_error"]
    assert measured is None or measured <= float(error) * 1.00001
    assert f"preset=best error={float(error)}" in cli.json("info", "a")["encoder"]


def test_a_rank_is_the_same_for_every_matrix(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a", "--rank", "5")
    tensors = cli.json("info", "a", "--tensors")["tensors"]
    assert {tuple(tensor["ranks"]) for tensor in tensors if tensor["kind"] == "lowrank"} == {(5,)}
    assert "preset=best rank=5" in cli.json("info", "a")["encoder"]


def test_what_is_left_out_is_told_only_if_something_is(cli: Cli) -> None:
    line = cli("encode", "base", "movie", "-o", "a", "--size", "2kB")
    assert re.search(r", relative error \d\.\d\d, \d+\.\d % of the delta left out, ", line)
    assert "left out" not in cli("encode", "base", "movie", "-o", "b", "--size", "100kB")


def test_one_size_holds_for_each_of_several_fine_tunes(cli: Cli) -> None:
    cli("encode", "base", "movie", "tweets", "-o", "made", "--size", "3kB")
    sizes = [path.stat().st_size for path in Path("made/packs").iterdir()]
    assert len(sizes) == 2
    assert all(2850 < size <= 3000 for size in sizes)


def test_files_that_travel_are_within_the_size(cli: Cli) -> None:
    Path("movie/config.json").write_text("".join(chr(97 + i * i % 26) for i in range(1500)))
    cli("encode", "base", "movie", "-o", "a", "--size", "3kB")
    assert Path("a").stat().st_size <= 3000
    assert {file["name"] for file in cli.json("info", "a")["files"]} == {"config.json", "vocab.txt"}


def test_the_pack_is_that_of_the_library(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a", "--size", "3kB")
    config = dtscodec.EncodeConfig(target=Size(Fraction(3000), "bytes"))
    report = dtscodec.encode("base", "movie", "b", config, task="movie")
    assert Path("a").read_bytes() == report.path.read_bytes()


# Wrong usage


def only_message(cli: Cli, *arguments: str) -> str:
    """The one message on standard error, after the usage."""
    err = cli.misused("encode", "base", "movie", "-o", "a", *arguments)
    _, message = err.split("dtscodec encode: error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    "targets",
    [
        ("--size", "1%", "--rank", "4"),
        ("--size", "1%", "--error", "0.5"),
        ("--rank", "4", "--error", "0.5"),
        ("--error", "0.5", "--rank", "4", "--size", "1%"),
    ],
)
def test_two_of_size_rank_and_error_are_misuse(cli: Cli, targets: tuple[str, ...]) -> None:
    assert "not allowed with argument" in only_message(cli, *targets)


@pytest.mark.parametrize(
    "text", ["0", "0%", "-1kB", "x", "", " ", "1e3", "nan", "inf", "5.", "1,5%", "1PB", "1MiB", "½%", "9" * 99]
)
def test_a_size_that_is_none_is_misuse(cli: Cli, text: str) -> None:
    assert "expected a size such as 0.5%, 2MB or 0.08bpp" in only_message(cli, f"--size={text}")


@pytest.mark.parametrize("text", ["0", "1", "-0.1", "1.5", "nan", "inf", "x", "", "50%", "9" * 999])
def test_an_error_that_is_not_between_0_and_1_is_misuse(cli: Cli, text: str) -> None:
    assert "expected a relative error between 0 and 1" in only_message(cli, f"--error={text}")


@pytest.mark.parametrize("target", [("--size", "1%"), ("--error", "0.5")])
def test_a_size_or_an_error_with_the_preset_paper_is_misuse(cli: Cli, target: tuple[str, str]) -> None:
    assert "expected a rank for the preset paper" in only_message(cli, "--preset", "paper", *target)


def test_levels_per_vector_with_the_preset_best_are_misuse(cli: Cli) -> None:
    assert "--levels is an option of the preset paper" in only_message(cli, "--levels", "vector")


@pytest.mark.parametrize("preset", ["", "Best", "worst"])
def test_a_preset_of_another_name_is_misuse(cli: Cli, preset: str) -> None:
    assert "invalid choice" in only_message(cli, f"--preset={preset}")


# Too small


@pytest.mark.parametrize("text", ["1", "100B", "0.01%", "0.001bpp"])
def test_too_small_a_size_fails_with_a_line_and_leaves_no_file(cli: Cli, text: str) -> None:
    line = cli.fails("encode", "base", "movie", "-o", "a", "--size", text)  # checks that all files are as before
    assert re.match(r"size: expected at least [\d,]+ bytes, got \d+; ", line)
    assert line.endswith("ask for a larger --size")
    assert not Path("a").exists()


def test_too_small_a_size_leaves_the_file_that_is_to_be_replaced(cli: Cli, work: Path) -> None:
    before = snapshot(work)
    cli.fails("encode", "base", "movie", "--force", "--size", "1B")
    assert snapshot(work)[PACK] == before[PACK]


def test_too_small_a_size_leaves_no_directory_of_packs_listed(cli: Cli) -> None:
    code, out, err = cli.run("encode", "base", "movie", "tweets", "-o", "made", "--size", "1B")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert [path for path in Path("made").rglob("*") if path.is_file()] == []


def test_the_size_that_is_named_can_be_asked_for(cli: Cli) -> None:
    line = cli.fails("encode", "base", "movie", "-o", "a", "--size", "1000B")
    smallest = re.search(r"at least ([\d,]+) bytes", line)
    assert smallest
    cli("encode", "base", "movie", "-o", "a", "--size", f"{smallest[1].replace(',', '')}B")
