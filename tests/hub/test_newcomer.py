"""A machine that knows nothing but names: real models, processes of their own, and what a page tells one to do."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import models
from tests.cli.helpers import CODED, Cli, snapshot
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import TASKS, run_python, uploads_large_files
from tests.support import ROOT

pytestmark = uploads_large_files

FIRST = min(TASKS)
"""The task that a page names."""

BEFORE = f"""
import numpy, torch, dtscodec
from transformers import BertForSequenceClassification

name = "bert.encoder.layer.0.output.dense.weight"
with dtscodec.open("hf://me/packs/{FIRST}") as pack:
    one = torch.from_numpy(numpy.array(pack.tensor(name, "hf://me/base")))
model_of_the_base = BertForSequenceClassification.from_pretrained("base").eval()
"""
AFTER = f"""
restored = BertForSequenceClassification.from_pretrained("{FIRST}").eval()
assert torch.equal(one, restored.state_dict()[name])
ids = torch.arange(3, 35).reshape(2, 16)
for other in (model.eval(), model_of_the_base):
    torch.testing.assert_close(other(ids).logits, restored(ids).logits)
    for name, tensor in restored.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
"""


@pytest.fixture
def real(cli: Cli, hub: LoopbackHub) -> LoopbackHub:
    """The Hub with packs of three fine-tunes of a BERT."""
    for name in ("base", *TASKS):
        shutil.rmtree(name)
    pair = models.make_pair("bert")
    base = models.save(pair.base, Path("base"))
    hub.create("me/base")
    hub.commit("me/base", {path.name: path.read_bytes() for path in base.iterdir()})
    for seed, task in enumerate(TASKS):
        models.perturb(pair.fine, seed)
        models.save(pair.fine, Path(f"real-{task}"))
    cli("encode", "hf://me/base", *[f"{task}=real-{task}" for task in TASKS], "-o", "packs", *CODED)
    cli("push", "packs", "me/packs")
    hub.requests.clear()
    return hub


def test_names_are_enough_and_the_page_says_how(cli: Cli, real: LoopbackHub, hub_environment: dict[str, str]) -> None:
    environment = {**hub_environment, "PYTHONPATH": str(ROOT)}

    def command(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dtscodec", *arguments], env=environment, check=True, capture_output=True)

    command("info", "hf://me/packs/movie")
    assert 0 < len([log for log in real.requests if log.range and "/cdn/" in log.path]) <= 2

    page = real.files("me/packs")["README.md"].decode()
    (told,) = re.findall(r"^dtscodec (decode \S+ -o \S+)", page, re.MULTILINE)
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    command(*told.split())
    cli("decode", f"packs/packs/{FIRST}.safetensors", "--base", "base", "-o", "local")
    assert snapshot(Path(FIRST)) == snapshot(Path("local"))
    run_python(BEFORE + code + AFTER, environment)


def test_no_range_is_asked_for_twice(real: LoopbackHub, hub_environment: dict[str, str]) -> None:
    run_python(BEFORE, {**hub_environment, "PYTHONPATH": str(ROOT)})
    asked = [(log.path, log.range) for log in real.requests if log.range and "/cdn/" in log.path]
    assert len(asked) == len(set(asked)) > 1
