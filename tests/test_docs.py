"""The documents are true: their Python runs word for word, their commands parse, their links lead somewhere."""

import argparse
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf

import dtscodec
from dtscodec.activations.gram_file import save_grams
from dtscodec.calibration.gram_collector import collect_grams
from dtscodec.cli.main import parser
from tests import documents, models
from tests.documents import Block, Document
from tests.evaluation.helpers import TEXTS, save_tokenizer
from tests.promises.helpers import write_words
from tests.support import ROOT

TASKS = ("movie", "tweets", "games")
OTHER_PROGRAMS = {"--max-lora-rank", "--no-deps", "--index-url"}
"""Options in the prose that are vLLM's or pip's."""


def named(document: Document) -> str:
    return document.path


def config() -> hf.BertConfig:
    return hf.BertConfig(
        vocab_size=3000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documents speak of: a base, fine-tunes, their packs and Gram matrices, and texts."""
    root = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    base = hf.BertModel(config())
    base.save_pretrained(root / "base")
    (root / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    write_words(root / "many.txt", 110)
    for seed, task in enumerate(TASKS):
        fine = hf.BertForSequenceClassification(config())
        fine.load_state_dict(models.start_from(base, fine))
        models.perturb(fine, seed)
        fine.save_pretrained(root / task)
        save_tokenizer(root / task, ends=True)
        means = collect_grams(fine.train(False), [{"input_ids": torch.randint(0, 3000, (4, 9))}])
        save_grams(root / f"{task}.grams.safetensors", means)
    for number, task in enumerate(TASKS[:2], start=1):
        for name in ("step", "checkpoint-"):
            shutil.copytree(root / task, root / f"{name}{number}")
    for task in TASKS[:2]:
        dtscodec.encode(root / "base", root / task, root / f"{task}.dts.safetensors")
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of those files, as the current directory."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.slow
@pytest.mark.parametrize("document", [page for page in documents.guides() if page.python()], ids=named)
def test_examples_run_in_order_and_word_for_word(folder: Path, document: Document) -> None:
    names: dict[str, object] = {
        "model": hf.BertForSequenceClassification(config()),
        "base_model": hf.BertModel(config()),
        "ids": torch.randint(0, 3000, (3, 9)),
        "arguments": hf.TrainingArguments(str(folder / "out"), max_steps=1, use_cpu=True, report_to=[]),
        "texts": [{"input_ids": torch.randint(0, 3000, (9,)), "labels": 0}] * 8,
    }
    for block in document.python():
        remove_packs_to_encode(folder, block)
        block.run(names)


def remove_packs_to_encode(folder: Path, block: Block) -> None:
    """Make room for the packs that an example writes; others use those of the folder."""
    for call in re.findall(r"encode\((.*)", block.text):
        for name in re.findall(r'"([^"]+\.safetensors)"', call):
            (folder / name).unlink(missing_ok=True)


def subparsers() -> dict[str, argparse.ArgumentParser]:
    actions = parser()._actions
    (commands,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def options_of(command: argparse.ArgumentParser) -> set[str]:
    """Options of a command, and of its actions, such as those of ``series``."""
    found = {option for action in command._actions for option in action.option_strings}
    nested = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    return found.union(*(options_of(inner) for action in nested for inner in action.choices.values()))


def options_in(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


COMMANDS = [(page, words) for page in documents.all_documents() for words in page.commands()]


@pytest.mark.parametrize(
    ("document", "words"), COMMANDS, ids=[f"{page.path}: {' '.join(words)}" for page, words in COMMANDS]
)
def test_commands_parse_and_spell_options_in_full(document: Document, words: list[str]) -> None:
    if words[0] in subparsers():
        assert options_in(words) <= options_of(subparsers()[words[0]])
    if {"-h", "--help", "--version"} & set(words):
        with pytest.raises(SystemExit, match=r"^0$"):
            parser().parse_args(words)
    else:
        parser().parse_args(words)


@pytest.mark.parametrize("document", documents.guides(), ids=named)
def test_commands_and_options_in_the_prose_exist(document: Document) -> None:
    commands = subparsers()
    every = set().union(*map(options_of, [parser(), *commands.values()]))
    unknown = []
    for span in document.inline():
        program, *words = span.split()
        if program == "dtscodec" and words and re.fullmatch("[a-z]+", words[0]):
            known = options_of(commands[words[0]]) if words[0] in commands else set()
            unknown += [span] if words[0] not in commands or not options_in(words) <= known else []
        elif program.startswith("--") and program.partition("=")[0] not in every | OTHER_PROGRAMS:
            unknown.append(span)
    assert not unknown


@pytest.mark.parametrize("document", documents.all_documents(), ids=named)
def test_links_lead_to_files_and_headings_that_exist(document: Document) -> None:
    broken = []
    for link in document.links():
        name, _, anchor = link.partition("#")
        target = (ROOT / document.path).parent / name if name else ROOT / document.path
        if not target.exists():
            broken.append(link)
        elif anchor and target.suffix == ".md":
            found = Document(str(target.resolve().relative_to(ROOT))).anchors()
            broken += [link] if anchor not in found else []
    assert not broken
