"""``dtscodec merge``."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtscodec.activations.gram_file import Gram, GramSet, save_grams
from dtscodec.merging.methods.registry import METHODS, make_method, options_of
from tests.cli.helpers import Cli, base_tensors, fine_tensors, load, write_model

CHANGED = ["decoder.weight", "embeddings.weight", "encoder.bias", "encoder.weight", "frozen.weight", "half.weight"]


def test_the_average_of_two(cli: Cli) -> None:
    out = cli("merge", "average", "movie", "tweets", "-o", "out.safetensors")
    assert out.startswith("average of 2 fine-tunes: 19.3 kB, tensors 7 averaged; 1 copied, ")
    assert out.endswith(" s: out.safetensors\n")
    merged, one, other = load("out.safetensors"), fine_tensors(11), fine_tensors(12)
    assert torch.equal(merged["encoder.weight"], (one["encoder.weight"] + other["encoder.weight"]) / 2)
    assert merged["half.weight"].dtype == torch.float16
    assert merged["steps"].tolist() == [3, 11]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "average"])
def test_every_method_with_a_base(cli: Cli, method: str) -> None:
    facts = cli.json("merge", method, "movie", "tweets", "--base", "base", "-o", "out")
    assert facts["merged"] == CHANGED
    assert facts["averaged"] == ["classifier.weight"]
    assert facts["copied"] == ["steps"]
    assert facts["left_out"] == {}
    assert [found["fine_tune"] for found in facts["distances"]] == ["movie", "tweets"]
    assert all(found["ratio"] > 0 for found in facts["distances"])
    assert sorted(path.name for path in Path("out").iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert load("out/model.safetensors")["frozen.weight"].equal(base_tensors()["frozen.weight"])


def test_one_line_says_what_was_merged_and_what_was_not(cli: Cli, work: Path) -> None:
    write_model(work / "other", fine_tensors(13) | {"classifier.weight": torch.zeros(5, 32)})
    out = cli("merge", "ties", "movie", "other", "--base", "base", "-o", "out.safetensors", "--no-files")
    assert out.count("\n") == 1
    assert out.startswith("ties alpha=1.0 keep=0.2 combine=mean of 2 fine-tunes: ")
    assert (
        "tensors 6 merged; 1 copied; left out: classifier.weight; distances relative to task vectors: movie 0." in out
    )


def test_every_option_is_taken_and_recorded(cli: Cli) -> None:
    given = {"alpha": "0.5", "keep": "0.1", "combine": "sum"}
    options = [text for name, value in given.items() for text in (f"--{name}", value)]
    facts = cli.json("merge", "ties", "movie", "tweets", "--base", "base", "-o", "a.safetensors", *options)
    assert facts["method"] == "ties alpha=0.5 keep=0.1 combine=sum"
    facts = cli.json("merge", "iso-cts", "movie", "tweets", "--base", "base", "-o", "b.safetensors", "--common", "0.5")
    assert facts["method"] == "iso-cts alpha=1.0 common=0.5"
    for name in ("movie", "tweets"):
        save_grams(
            Path(f"{name}.grams.safetensors"), GramSet({"encoder.weight": Gram(torch.eye(32, dtype=torch.float64))})
        )
    switches = ["--no-task-scaling", "--no-dimension-scaling", "--no-layer-scaling", "--no-orthogonal"]
    grams = ["--grams", "movie.grams.safetensors", "--grams", "tweets.grams.safetensors"]
    command = ["merge", "esm", "movie", "tweets", "--base", "base", "-o", "c.safetensors", "--damping", "0"]
    facts = cli.json(*command, *switches, "--energy-scaling", "--alpha-everywhere", *grams)
    expected = (
        "esm alpha=1.0 alpha_everywhere=True damping=0.0 task_scaling=False dimension_scaling=False "
        "layer_scaling=False energy_scaling=True orthogonal=False"
    )
    assert facts["method"] == expected
    assert facts["without_grams"] == ["decoder.weight", "embeddings.weight", "frozen.weight", "half.weight"]


def test_names_and_options_are_those_of_the_methods() -> None:
    for name in METHODS:
        method = make_method(name)
        assert method.name == name
        declared = [(option.name, option.default) for option in options_of(name)]
        assert declared == [(field.name, field.default) for field in fields(method)]
        assert all(option.text for option in options_of(name))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["ties", "movie", "tweets"], "ties: expected the base of the fine-tunes, got none; name it with --base"),
        (["average", "movie"], "average: expected at least 2 fine-tunes, got 1"),
        (["average", "movie", "tweets", "--keep", "0.1"], "average: expected options of no kind, got 'keep'"),
        (["ties", "movie", "tweets", "--base", "base", "--keep", "2"], "keep: expected a share above 0 and up to 1"),
        (["average", "movie", "nowhere"], "nowhere: expected a checkpoint, got nothing of that name"),
        (["average", "movie", "tweets", "--raw", "cnov*"], "raw: expected patterns that fit a tensor"),
        (["ties", "movie", "--base", "base", "--grams", "x"], "ties: expected no Gram matrices, got some"),
    ],
)
def test_what_cannot_be_merged_is_one_line_and_leaves_nothing(cli: Cli, command: list[str], line: str) -> None:
    assert cli.fails("merge", *command, "-o", "out.safetensors").startswith(line)


@pytest.mark.parametrize("method", ["esm", "iso-cts", "task-arithmetic"])
def test_a_merge_of_more_than_its_dtype_holds_is_one_line_and_leaves_nothing(cli: Cli, method: str) -> None:
    for alpha, out in (("1e7", "out.safetensors"), ("1e39", "out"), ("1e300", "out.safetensors")):
        command = "merge", method, "movie", "tweets", "--base", "base", "--alpha", alpha, "-o", out
        assert re.fullmatch(
            r"\S+: expected finite merged weights in F(16|32), got infinity or NaN; "
            r"choose a smaller --alpha, or leave it out with --raw",
            cli.fails(*command),
        )


def test_an_output_that_exists_is_replaced_with_force_only(cli: Cli) -> None:
    command = ["merge", "average", "movie", "tweets", "-o", "out"]
    cli(*command)
    assert "pass --force to replace it" in cli.fails(*command)
    cli(*command, "--force")


def test_wrong_usage(cli: Cli) -> None:
    for command in (["nonsense", "movie", "tweets"], ["average", "-o", "x"], ["ties", "a", "b", "--alpha", "nan"]):
        cli.misused("merge", *command, "-o", "out")


def test_copies_of_quantized_weights_are_told_in_words_and_in_json(cli: Cli) -> None:
    codes = {"fc.weight": torch.zeros(8, 8, dtype=torch.int8), "fc.weight_scale": torch.ones(8, 1)}
    for name in ("one", "two"):
        save_file(codes | {"norm.weight": torch.ones(8)}, f"{name}.safetensors")
    command = ("merge", "average", "one.safetensors", "two.safetensors", "-o", "out.safetensors", "-f")
    (note,) = cli.json(*command)["notes"]
    assert note["names"] == ["fc.weight"]
    _, out, _ = cli.run(*command)
    assert out.splitlines()[1] == f"{note['text']}; {note['remedy']}"
