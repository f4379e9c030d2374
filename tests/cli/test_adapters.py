"""``dtscodec import`` and ``dtscodec export``, with a real adapter."""

import json
import shutil
from pathlib import Path

import pytest

from tests.adapters.helpers import train
from tests.cli.helpers import Cli
from tests.evaluation.helpers import make, write_texts
from tests.support import check_against_spec


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and an adapter with a head and a norm of its own."""
    whole = ["classifier", "embeddings.LayerNorm"]
    return train("bert", tmp_path_factory.mktemp("lora"), modules_to_save=whole).folder


@pytest.fixture
def here(cli: Cli, lora: Path) -> Path:
    """The working directory, with base and adapter in a folder of it."""
    shutil.copytree(lora, "lora")
    return Path("lora")


@pytest.mark.usefixtures("here")
def test_an_adapter_goes_to_a_pack_and_back(cli: Cli) -> None:
    line = cli("import", "lora/adapter", "--base", "lora/base")
    pack = Path("adapter.dts.safetensors")
    assert line.startswith("adapter: ")
    assert " 6 layers, " in line
    assert " 4 tensors exact, " in line
    assert line.endswith(f": {pack}\n")
    check_against_spec(pack, "lora/base")
    lines = cli("export", str(pack), "--to", "peft", "--base", "lora/base", "-o", "again").splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["left", "out"], ["outputs", "differ"]]
    assert "stored exactly, changed by up to " in lines[0]
    assert " % of its norm: bert.embeddings.LayerNorm." in lines[0]
    assert "2 tensors of 1 module " in lines[1]
    assert "--samples" in lines[1]
    assert "6 layers of BertForSequenceClassification at rank 4, whole: classifier, " in lines[-1]
    assert "vLLM: LoRA is not supported for BertForSequenceClassification" in lines[-1]
    assert lines[-1].endswith(": again")
    assert sorted(path.name for path in Path("again").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.usefixtures("here")
def test_json_says_what_the_text_says(cli: Cli) -> None:
    found = cli.json("import", "lora/adapter", "--base", "lora/base", "-o", "p", "--bits", "2")
    assert found["path"] == "p"
    assert found["pack_bytes"] == Path("p").stat().st_size
    assert found["modules"] == 6
    norm = ["bert.embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.weight"]
    assert found["exact"] == [*norm, "classifier.bias", "classifier.weight"]
    assert 0.2 < found["relative_error"] < 0.6
    options = ("--base", "lora/base", "-o", "again", "--modules-to-save", "--dtype", "bf16", "--base-name", "org/base")
    report = cli.json("export", "p", "--to", "peft", *options)
    assert report["saved"] == ["bert.embeddings.LayerNorm", "classifier"]
    assert report["left_out"] == report["tied"] == []
    assert set(report["ranks"].values()) == {report["rank"]} == {4}
    assert report["left_out_share"] == 0
    assert report["vllm_rank"] is None
    assert report["adapter_bytes"] == Path("again/adapter_model.safetensors").stat().st_size
    assert json.loads(Path("again/adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"


def test_samples_measure_the_effect_of_what_is_left_out(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    causal = make("llama", tmp_path_factory.mktemp("effect"))
    write_texts(Path("texts.jsonl"))
    options = ("export", str(causal.pack), "--to", "peft", "--base", str(causal.base), "--samples", "texts.jsonl")
    lines = cli(*options, "-o", "a").splitlines()
    (line,) = [line for line in lines if line.startswith("behaviour ")]
    assert line.endswith("base + adapter against decoded")
    assert not any(line.startswith("outputs differ") for line in lines)
    assert any(line.startswith("do not merge it with PEFT: lm_head, model.embed_tokens") for line in lines)
    found = cli.json(*options, "-o", "b")
    assert 0 <= found["effect"]["agreement"] <= 1
    assert all(item["relative_change"] > 0 for item in found["left_out"])


@pytest.mark.usefixtures("here")
def test_failures_are_one_line_and_leave_nothing(cli: Cli) -> None:
    cli("import", "lora/adapter", "--base", "lora/base", "-o", "p")
    assert "adapter_config.json" in cli.fails("import", "lora/base", "--base", "lora/base", "-o", "q")
    assert "--map" in cli.fails("import", "lora/adapter", "--base", "base", "-o", "q")
    assert "--force" in cli.fails("import", "lora/adapter", "--base", "lora/base", "-o", "p")
    export = ("export", "p", "--to", "peft", "--base", "lora/base")
    assert "LayerNorm" in cli.fails(*export, "-o", "again", "--strict")
    assert "--to peft" in cli.fails("export", "p", "--to", "vllm", "--base", "lora/base", "-o", "again")
    assert "leave out --modules-to-save" in cli.fails("export", "p", "--to", "vllm", "-o", "q", "--modules-to-save")
    assert "--base" in cli.fails("export", "p", "--to", "peft", "-o", "again")
    assert "--force" in cli.fails(*export, "-o", "lora")
    assert "local path" in cli.fails(*export, "-o", "s3://bucket/again")


@pytest.mark.usefixtures("here")
def test_force_replaces(cli: Cli) -> None:
    for _ in range(2):
        cli("import", "lora/adapter", "--base", "lora/base", "-o", "p", "--force")
        cli("export", "p", "--to", "peft", "--base", "lora/base", "-o", "again", "--force")


@pytest.mark.parametrize(
    "command",
    [
        ["import", "lora"],
        ["import", "lora", "--base", "base", "--bits", "3"],
        ["export", "p", "-o", "out"],
        ["export", "p", "--to", "gguf", "-o", "out"],
        ["export", "p", "--to", "peft"],
        ["export", "p", "--to", "peft", "-o", "out", "--rank", "0.5"],
    ],
)
def test_wrong_usage(cli: Cli, command: list[str]) -> None:
    assert "error: " in cli.misused(*command)
