"""``dtscodec fit``, on a small classifier."""

from pathlib import Path

import pytest

import dtscodec
from dtscodec.calibration.fit_loss import FitLoss
from tests.cli.helpers import Cli
from tests.evaluation.helpers import Made, make, write_texts
from tests.support import check_against_spec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def texts(work: Path) -> str:
    return str(write_texts(work / "texts.jsonl"))


def command(small: Made, texts: str, *more: str) -> list[str]:
    return ["fit", str(small.pack), str(small.fine), "--base", str(small.base), "--samples", texts, *more]


def test_it_writes_the_pack_that_the_python_function_writes(cli: Cli, small: Made, texts: str) -> None:
    out = cli(*command(small, texts, "-o", "out", "--steps", "3"))
    report = dtscodec.fit(small.pack, small.fine, "same", small.base, samples=texts, steps=3)
    assert Path("out").read_bytes() == Path("same").read_bytes()
    assert out.startswith(
        f"pack: {Path('out').stat().st_size / 1000:.1f} kB, {report.numbers:,} numbers fitted to 7 texts"
    )
    check_against_spec(Path("out"), small.base)


def test_the_default_output_is_named_after_the_pack(cli: Cli, small: Made, texts: str) -> None:
    Path("movie.dts.safetensors").write_bytes(small.pack.read_bytes())
    given = "movie.dts.safetensors", str(small.fine), "--base", str(small.base), "--samples", texts, "--steps", "1"
    assert cli("fit", *given).endswith(": movie.fitted.dts.safetensors\n")
    assert Path("movie.fitted.dts.safetensors").is_file()


def test_json_holds_the_report(cli: Cli, small: Made, texts: str) -> None:
    document = cli.json(*command(small, texts, "-o", "out", "--steps", "2"))
    with dtscodec.open("out") as pack:
        assert document["pack_id"] == pack.id
        assert document["pack_bytes"] == pack.size
    assert (document["path"], document["samples"]) == ("out", 7)
    assert set(document["before"]) == set(document["after"]) == {"kl", "hidden"}


def test_biases_are_corrected_with_the_fit_or_alone_and_elements_left_out(cli: Cli, small: Made, texts: str) -> None:
    ways = [(), ("--bias-correction",), ("--no-elements",), ("--steps", "0", "--bias-correction")]
    ids = set()
    for number, way in enumerate(ways):
        steps = () if "--steps" in way else ("--steps", "3")
        cli(*command(small, texts, "-o", f"{number}", *steps, *way))
        with dtscodec.open(f"{number}") as pack:
            ids.add(pack.id)
    assert len(ids) == len(ways)


@pytest.mark.parametrize(
    "given",
    [
        ("--steps", "0"),
        ("--steps", "0", "--no-elements"),
        ("--steps", "-1"),
        ("--steps", "many"),
    ],
)
def test_a_fit_of_nothing_is_wrong_usage(cli: Cli, small: Made, texts: str, given: tuple[str, ...]) -> None:
    assert "--steps" in cli.misused(*command(small, texts, *given))


def test_samples_are_required(cli: Cli, small: Made) -> None:
    assert "--samples" in cli.misused("fit", str(small.pack), str(small.fine))


def test_weights_alone_need_a_model_directory(cli: Cli, small: Made, texts: str) -> None:
    weights = str(small.fine / "model.safetensors")
    given = "fit", str(small.pack), weights, "--base", str(small.base), "--samples", texts, "-o", "out"
    assert "--model" in cli.fails(*given)
    cli(*given, "--model", str(small.fine), "--steps", "1")


def test_an_existing_output_is_replaced_only_by_force(cli: Cli, small: Made, texts: str) -> None:
    Path("out").write_text("mine")
    assert "--force" in cli.fails(*command(small, texts, "-o", "out", "--steps", "1"))
    cli(*command(small, texts, "-o", "out", "--steps", "1", "--force"))


def test_a_pack_that_holds_nothing_to_fit_is_one_line(cli: Cli, small: Made, texts: str) -> None:
    dtscodec.encode(small.base, small.fine, "exact", dtscodec.EncodeConfig(raw=("*",)))
    given = "fit", "exact", str(small.fine), "--base", str(small.base), "--samples", texts, "-o", "out"
    assert "expected coded tensors" in cli.fails(*given)


@pytest.mark.parametrize(
    ("after", "way", "words"),
    [
        (0.2, ("--steps", "1"), "KL on these 0.1 -> 0.2 (it rose: more --steps may help), "),
        (
            0.2,
            ("--steps", "0", "--bias-correction"),
            "KL on these 0.1 -> 0.2 (it rose: --steps may help), ",
        ),
        (0.05, ("--steps", "1"), "KL on these 0.1 -> 0.05, "),
    ],
)
def test_a_kl_that_rose_in_the_fit_is_reported(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch, after: float, way: tuple[str, ...], words: str
) -> None:
    losses = iter([FitLoss(0.1, 1.0), FitLoss(after, 0.5)])
    monkeypatch.setattr("dtscodec.calibration.fit.mean_loss", lambda distillation, batches: next(losses))
    assert words in cli(*command(small, texts, "-o", "out", *way))


def test_offloaded_models_give_the_same_pack_and_the_line_says_so(cli: Cli, small: Made, texts: str) -> None:
    whole = cli(*command(small, texts, "-o", "whole", "--steps", "2", "--no-offload"))
    offloaded = cli(*command(small, texts, "-o", "offloaded", "--steps", "2", "--offload"))
    assert Path("whole").read_bytes() == Path("offloaded").read_bytes()
    words = " fitted to 7 texts (1 of them truncated) with one layer at a time in memory, "
    assert words in offloaded
    assert words not in whole
