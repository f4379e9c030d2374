"""``encode --max-kl`` and ``--min-agreement``."""

import sys
from pathlib import Path

import pytest

import dtscodec
from tests.cli.helpers import PACK, Cli
from tests.evaluation.helpers import Made, make
from tests.promises.helpers import write_words


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def texts(work: Path) -> str:
    return str(write_words(work / "many.txt", 110))


@pytest.mark.slow
def test_it_prints_the_claim_and_json_has_the_trials(cli: Cli, small: Made, texts: str) -> None:
    command = "encode", str(small.base), str(small.fine), "-o", "out", "--calibration", texts
    # A loose bound, which the first packs keep.
    lines = cli(*command, "--max-kl", "0.5").splitlines()
    assert lines[-1].startswith("fine: KL ")
    assert ", with 95 % confidence at most " in lines[-1]
    facts = cli.json(*command, "--min-agreement", "50%", "--force")["packs"]["fine"]
    assert facts["claim"] == cli.json("info", "out")["claim"]
    assert facts["measurements"] == 1
    assert {trial["fitted"] for trial in facts["trials"]} == {False, True}
    assert dtscodec.info("out").claim is not None


@pytest.mark.slow
def test_a_promise_that_cannot_be_kept_fails_with_one_line_and_writes_nothing(
    cli: Cli, small: Made, texts: str
) -> None:
    command = "encode", str(small.base), str(small.fine), "-o", "out", "--calibration", texts
    line = cli.fails(*command, "--max-kl", "1e-7", "--size", "8kB")
    assert line.startswith("promise: expected a KL of at most 1e-07 in at most 8.0 kB, got ")
    assert line.endswith("; allow a larger --size")


@pytest.mark.parametrize(
    "options",
    [
        ("--max-kl", "0.01"),
        ("--max-kl", "nan", "--calibration", "many.txt"),
        ("--max-kl", "0", "--calibration", "many.txt"),
        ("--min-agreement", "101%", "--calibration", "many.txt"),
        ("--min-agreement", "100%", "--calibration", "many.txt"),
        ("--min-agreement", "good", "--calibration", "many.txt"),
        ("--max-kl", "0.01", "--min-agreement", "97%", "--calibration", "many.txt"),
        ("--max-kl", "0.01", "--rank", "4", "--calibration", "many.txt"),
        ("--max-kl", "0.01", "--preset", "paper", "--calibration", "many.txt"),
    ],
    ids=" ".join,
)
def test_wrong_usage(cli: Cli, options: tuple[str, ...]) -> None:
    cli.misused("encode", "base", "movie", "-o", "out", *options)


def test_a_terminal_is_told_how_to_measure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True, raising=False)
    code, _, err = cli.run("encode", "base", "movie", "--force")
    assert code == 0
    command = f"dtscodec compare {PACK} movie --base base --samples SAMPLES"
    assert err.endswith(f"dtscodec: movie: to measure how it behaves: {command}\n")
