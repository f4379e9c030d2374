"""``dtscodec fuse``, with small BERTs."""

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from dtscodec.cli.main import main
from tests import models
from tests.cli.helpers import Cli, load
from tests.support import check_against_spec

pytestmark = pytest.mark.slow

TASKS = ("movie", "tweets", "news")
TELLING = ("--base", "bert/base")


@pytest.fixture(scope="module")
def berts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, packs of three fine-tunes, and an unseen fine-tune of three classes, all of them directories."""
    root = tmp_path_factory.mktemp("berts")
    torch.manual_seed(0)
    base = hf.BertModel(models.bert_config())
    models.save(base, root / "base")
    for seed, (name, labels) in enumerate([*((task, 2) for task in TASKS), ("unseen", 3)]):
        config = models.bert_config()
        config.num_labels = labels
        fine = hf.BertForSequenceClassification(config)
        fine.load_state_dict(models.start_from(base, fine))
        models.perturb(fine, seed)
        with torch.no_grad():  # A head like that of the first task, and less like the others'.
            fine.classifier.weight.copy_(torch.cat([torch.eye(3, 64)[:1] * 2 + torch.eye(3, 64)[seed % 3]] * labels))
        models.save(fine, root / name)
        if name in TASKS:
            out = root / f"{name}.dts.safetensors"
            assert main(["encode", f"{root}/base", f"{root}/{name}", "-o", str(out), "--size", "20%"]) == 0
    return root


@pytest.fixture
def packs(cli: Cli, berts: Path) -> list[str]:
    """The working directory, with a link to all that; the packs' names."""
    Path("bert").symlink_to(berts)
    return [f"bert/{task}.dts.safetensors" for task in TASKS]


def test_an_unseen_task_from_its_head(cli: Cli, packs: list[str]) -> None:
    lines = cli(
        "fuse", *packs, "--like", "bert/unseen", "-o", "games.dts.safetensors", "--size", "20%", *TELLING
    ).splitlines()
    assert lines[0].split() == ["task", "cosine", "weight"]
    assert [line.split()[0] for line in lines[1:4]] == list(TASKS)
    weights = [float(line.split()[2]) for line in lines[1:4]]
    assert sum(weights) == pytest.approx(1, abs=0.002)
    assert weights[0] > weights[1]
    assert lines[4].startswith("games: ")
    assert "head of 2 tensors exact" in lines[4]
    assert lines[4].endswith(": games.dts.safetensors")
    check_against_spec(Path("games.dts.safetensors"), "bert/base")
    cli("verify", "games.dts.safetensors", "--base", "bert/base")
    cli("decode", "games.dts.safetensors", "--base", "bert/base", "-o", "games")
    model = hf.BertForSequenceClassification.from_pretrained("games")
    assert model.config.num_labels == 3
    unseen = load("bert/unseen/model.safetensors")
    assert torch.equal(model.classifier.weight, unseen["classifier.weight"])
    base = load("bert/base/model.safetensors")
    fines = [dict(load(f"bert/{task}/model.safetensors")) for task in TASKS]
    query = "encoder.layer.0.attention.self.query.weight"
    expected = sum(
        (w * (fine[f"bert.{query}"] - base[query]) for w, fine in zip(weights, fines, strict=True)), torch.zeros(())
    )
    got = load("games/model.safetensors")[f"bert.{query}"] - base[query]
    assert torch.nn.functional.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.8


def test_json_says_what_the_text_says(cli: Cli, packs: list[str]) -> None:
    save_file(
        {name: t for name, t in load_file("bert/unseen/model.safetensors").items() if "classifier" in name}, "head"
    )
    report = cli.json(
        "fuse", *packs, "--weights", "0.5,0.3,0.2", "--like", "head", "-o", "p", "--error", "0.5", *TELLING
    )
    assert (report["path"], report["weights"], report["similarities"]) == ("p", [0.5, 0.3, 0.2], None)
    assert report["tasks"] == list(TASKS)
    assert report["head"] == ["classifier.bias", "classifier.weight"]
    assert report["pack_bytes"] == Path("p").stat().st_size
    assert 0.3 < report["relative_error"] <= 0.5
    assert cli.json("info", "p")["task"] == "p"


def test_vectors_of_texts(cli: Cli, packs: list[str]) -> None:
    vectors = {task: torch.eye(4)[i] for i, task in enumerate(TASKS)} | {"games": torch.tensor([3.0, 1.0, 0, 0])}
    save_file(vectors, "texts.safetensors")
    found = ("--vectors", "texts.safetensors", "--like", "games", "--head", "bert/unseen")
    report = cli.json("fuse", *packs, *found, "-o", "p", *TELLING)
    assert report["weights"] == pytest.approx([0.75, 0.25, 0])
    assert report["head"] == ["classifier.bias", "classifier.weight"]


def test_heads_that_are_all_alike_are_noted(cli: Cli, packs: list[str]) -> None:
    code, out, err = cli.run("fuse", packs[0], packs[0], "--like", packs[0], "-o", "p", *TELLING)
    assert (code, err.count("\n")) == (0, 1)
    assert "--minus" in err
    assert "0.500" in out


def test_what_cannot_be_fused_fails_with_one_line(cli: Cli, packs: list[str]) -> None:
    assert "--like" in cli.fails("fuse", *packs, "-o", "p")
    assert "--like" in cli.fails("fuse", *packs, "--weights", "1,1,1", "-o", "p", *TELLING)
    assert "3 packs" in cli.fails("fuse", *packs, "--weights", "1,1", "-o", "p")
    assert "one base" in cli.fails("fuse", packs[0], "movie.dts.safetensors", "--weights", "1,1", "-o", "p")
    assert "expected nothing" in cli.fails(
        "fuse", *packs, "--like", "bert/unseen", "-o", "movie.dts.safetensors", *TELLING
    )
    assert "nothing of that name" in cli.fails("fuse", *packs, "--like", "missing", "-o", "p")
    assert "missing" in cli.fails("fuse", *packs, "missing", "--weights", "1,1,1,1", "-o", "p")
    assert "--size" in cli.fails("fuse", *packs, "--like", "bert/unseen", "-o", "p", "--size", "1kB", *TELLING)
    assert "--vectors" in cli.misused("fuse", *packs, "--like", "a", "--vectors", "v", "--minus", "h", "-o", "p")
    assert "give --like" in cli.misused("fuse", *packs, "--weights", "1,1,1", "--plain-sum", "-o", "p")
    assert "got both" in cli.fails("fuse", *packs, "--weights", "1,1,1", "--like", "a", "--plain-sum", "-o", "p")
    assert "0.5,0.3" in cli.misused("fuse", *packs, "--weights", "a,b", "-o", "p")
    assert "--error" in cli.misused("fuse", *packs, "--weights", "1,1,1", "-o", "p", "--error", "0.5", "--size", "1MB")


def test_files_are_those_of_the_head_or_of_the_pack_that_counts_most(cli: Cli, packs: list[str]) -> None:
    cli("fuse", *packs, "--like", "bert/unseen", "-o", "p", *TELLING)
    cli("decode", "p", "--base", "bert/base", "-o", "out")
    assert json.loads(Path("out/config.json").read_text())["id2label"].keys() == {"0", "1", "2"}
    cli("fuse", packs[0], packs[0], "--weights", "0.5,0.5", "-o", "q", *TELLING)
    cli("decode", "q", "--base", "bert/base", "-o", "out2")
    assert (Path("out2/config.json")).read_text() == Path("bert/movie/config.json").read_text()
    cli("fuse", *packs, "--like", "bert/unseen", "-o", "r", "--no-files", *TELLING)
    cli("decode", "r", "--base", "bert/base", "-o", "out3")
    assert not Path("out3/config.json").exists()
