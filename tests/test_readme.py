"""The README's Python, run word for word on small models."""

import re
from pathlib import Path

import pytest
import torch
import transformers as hf

import dtscodec
from dtscodec.activations.gram_file import save_grams
from dtscodec.calibration.gram_collector import collect_grams
from tests import models
from tests.support import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def config() -> hf.BertConfig:
    return hf.BertConfig(
        vocab_size=3000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories that the README speaks of, and packs of the fine-tunes."""
    root = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    base = hf.BertModel(config())
    base.save_pretrained(root / "base")
    for seed, task in enumerate(("movie", "tweets", "games")):
        fine = hf.BertForSequenceClassification(config())
        fine.load_state_dict(models.start_from(base, fine))
        models.perturb(fine, seed)
        fine.save_pretrained(root / task)
        means = collect_grams(fine.train(False), [{"input_ids": torch.randint(0, 3000, (4, 9))}])
        save_grams(root / f"{task}.grams.safetensors", means)
    return root


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_run(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(folder)
    for task in ("movie", "tweets"):
        pack = Path(f"{task}.dts.safetensors")
        if not pack.exists():
            dtscodec.encode("base/", f"{task}/", pack)
    if "dtscodec.encode" in BLOCKS[number]:
        for pack in Path().glob("*.dts.safetensors"):
            pack.unlink()  # The example makes it.
    names = {
        "model": hf.BertForSequenceClassification(config()),
        "base_model": hf.BertModel(config()),
        "ids": torch.randint(0, 3000, (3, 9)),
    }
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names)
