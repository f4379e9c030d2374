import re
import sys
from pathlib import Path

import pytest

from dtscodec.cli.result_lines import behaviour_line
from dtscodec.evaluation.compare_behaviour import Behaviour, FigurePair
from tests.cli.helpers import Cli
from tests.cli.test_main import Terminal
from tests.evaluation.helpers import LABELS, TEXTS, Made, make, write_texts


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def labelled(work: Path) -> str:
    return str(write_texts(work / "labelled.jsonl", LABELS))


def command(made: Made, *more: str) -> list[str]:
    return ["compare", str(made.pack), str(made.fine), "--base", str(made.base), *more]


def test_the_table_is_followed_by_the_behaviour(cli: Cli, classifier: Made, labelled: str) -> None:
    plain = cli(*command(classifier))
    text = cli(*command(classifier, "--samples", labelled))
    assert text.startswith(plain)
    line = r"behaviour   7 texts: KL \d\S*, agrees \d+\.\d %, accuracy \d+\.\d % -> \d+\.\d %\n"
    assert re.fullmatch(line, text.removeprefix(plain))


def test_a_language_model_shows_tokens_and_perplexity(cli: Cli, language_model: Made, labelled: str) -> None:
    last = cli(*command(language_model, "--samples", labelled)).splitlines()[-1]
    assert re.fullmatch(r"behaviour   7 texts, \d+ tokens: KL \d\S*, agrees \d+\.\d %, perplexity \d\S* -> \d\S*", last)


def test_json_holds_the_figures_of_the_python_function(cli: Cli, classifier: Made, labelled: str) -> None:
    document = cli.json(*command(classifier, "--samples", labelled))
    figures = classifier.compare(Path(labelled))
    assert document.pop("behaviour") == {
        "samples": len(TEXTS),
        "predictions": len(TEXTS),
        "kl": figures.kl,
        "agreement": figures.agreement,
        "accuracy": figures.accuracy and figures.accuracy._asdict(),
        "perplexity": None,
        "kl_limit": figures.kl_limit,
        "agreement_limit": figures.agreement_limit,
    }
    assert document == cli.json(*command(classifier))


def test_a_bare_weight_file_needs_a_model_directory(cli: Cli, classifier: Made, labelled: str) -> None:
    bare = ["compare", str(classifier.pack), str(classifier.fine / "model.safetensors"), "--base", str(classifier.base)]
    assert "--model" in cli.fails(*bare, "--samples", labelled)
    document = cli.json(*bare, "--samples", labelled, "--model", str(classifier.fine), "--batch-size", "2")
    assert document["behaviour"]["samples"] == len(TEXTS)


def test_figures_are_rounded_for_people() -> None:
    behaviour = Behaviour(1500, 20_000, 0.00394, 0.9688, FigurePair(0.787, 0.7791), FigurePair(12.3456, 1234567.0))
    line = "behaviour   1,500 texts, 20,000 tokens: KL 0.0039, agrees 96.9 %, accuracy 78.7 % -> 77.9 %, perplexity"
    assert behaviour_line(behaviour, "texts.txt") == f"{line} 12.35 -> 1.235e+06"


@pytest.mark.parametrize(
    "wrong",
    [["--model", "x"], ["--batch-size", "4"], ["--samples", "x", "--batch-size", "0"], ["--batch-size", "x"]],
)
def test_wrong_usage(cli: Cli, classifier: Made, wrong: list[str]) -> None:
    assert "error: " in cli.misused(*command(classifier, *wrong))


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (None, "texts.jsonl: expected a file of texts, got 'No such file"),
        ("", "texts.jsonl: expected at least one text, got none"),
        ('{"text": "w1"}\nno json\n', "texts.jsonl: line 2: expected JSON, got "),
        ('{"text": "w1", "label": 2}\n', "texts.jsonl: line 1: expected a label from 0 to 1, or a name such as 'LABEL"),
    ],
)
def test_bad_texts_are_reported_in_one_line(cli: Cli, classifier: Made, content: str | None, start: str) -> None:
    if content is not None:
        Path("texts.jsonl").write_text(content)
    assert cli.fails(*command(classifier, "--samples", "texts.jsonl")).startswith(start)


def test_a_model_directory_of_another_model_is_reported_in_one_line(
    cli: Cli, classifier: Made, language_model: Made, labelled: str
) -> None:
    line = cli.fails(*command(classifier, "--samples", labelled, "--model", str(language_model.fine)))
    assert line.startswith(f"{classifier.fine}/model.safetensors: expected the tensors of a LlamaForCausalLM")
    assert "movie: expected a model directory" in cli.fails(
        *command(classifier, "--samples", labelled, "--model", str(classifier.base.parent / "movie"))
    )


def test_another_base_is_refused(cli: Cli, classifier: Made, language_model: Made, labelled: str) -> None:
    other = command(classifier, "--samples", labelled, "--base", str(language_model.base))
    assert "base" in cli.fails(*other)


def test_without_transformers_the_error_says_how_to_install_it(
    cli: Cli, classifier: Made, labelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'dtscodec[transformers]'" in cli.fails(*command(classifier, "--samples", labelled))
    assert cli(*command(classifier))


def test_a_terminal_sees_progress_in_texts(
    cli: Cli, classifier: Made, labelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        code, _, _ = cli.run(*command(classifier, "--samples", labelled, "--batch-size", "2"))
    assert code == 0
    assert re.search(r"\rbehaviour: +\d+%.* \d/7 .* texts/s", terminal.getvalue())
    assert terminal.getvalue().split("\r")[-1].strip() == ""
