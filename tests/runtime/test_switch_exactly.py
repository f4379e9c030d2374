"""`Switcher(exact=True)`: the fine-tune's weights bit for bit, from packs with a residual layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import dtscodec
from dtscodec.errors import FormatError
from tests.models import bert_config

CONFIGS = {
    "no codes": dtscodec.EncodeConfig(preset=dtscodec.BaseOnly(), exact=True),
    "codes": dtscodec.EncodeConfig(dtscodec.RankShare(0.1), exact=True),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_the_fine_tunes_bit_for_bit(
    config: dtscodec.EncodeConfig, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model: Any = transformers.BertModel(bert_config())
    model.to(dtype)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tasks = {}
    for task in ("one", "two"):
        fine = {name: weight.clone() for name, weight in before.items()}
        for weight in fine.values():
            if weight.is_floating_point():
                weight.add_(0.01 * torch.randn_like(weight))
        tasks[task] = fine
        dtscodec.encode(before, fine, tmp_path / f"{task}.safetensors", config)
    packs = {task: tmp_path / f"{task}.safetensors" for task in tasks}
    switcher = dtscodec.Switcher(model, packs=packs, exact=True)
    for task in ("one", "two", "one"):
        switcher.activate(task)
        assert all(torch.equal(weight, tasks[task][name]) for name, weight in model.state_dict().items())
    switcher.deactivate()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(size > 0 for size in switcher.memory().values())


def test_a_pack_without_a_residual_layer_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(30, 40)
    fine = {name: weight + 1 for name, weight in model.state_dict().items()}
    path = dtscodec.encode(model.state_dict(), fine, tmp_path / "p.safetensors").path
    with pytest.raises(FormatError, match="residual"):
        dtscodec.Switcher(model, packs={"one": path}, exact=True)


def test_without_it_only_the_front_is_used(tmp_path: Path) -> None:
    model = torch.nn.Linear(30, 40)
    fine = {name: weight + torch.randn_like(weight) for name, weight in model.state_dict().items()}
    exact = dtscodec.encode(model.state_dict(), fine, tmp_path / "p.safetensors", CONFIGS["codes"]).path
    dtscodec.strip(exact, tmp_path / "s.safetensors")
    states = []
    for path in (exact, tmp_path / "s.safetensors"):
        switcher = dtscodec.Switcher(model, packs={"one": path})
        switcher.activate("one")
        states.append({name: weight.clone() for name, weight in model.state_dict().items()})
        switcher.deactivate()
    assert all(torch.equal(states[0][name], states[1][name]) for name in fine)
    assert not torch.equal(states[0]["weight"], fine["weight"])


def test_a_pack_whose_changes_are_all_in_its_residual_layer_is_not_taken_for_the_base(tmp_path: Path) -> None:
    model = torch.nn.Linear(30, 40)
    fine = {name: weight + torch.randn_like(weight) for name, weight in model.state_dict().items()}
    path = dtscodec.encode(model.state_dict(), fine, tmp_path / "p.safetensors", CONFIGS["no codes"]).path
    uses: list[Callable[[], object]] = [
        lambda: dtscodec.Switcher(model, packs={"one": path}),
        lambda: dtscodec.attach(model, {"one": path}),
        lambda: dtscodec.apply_(model, path),
        lambda: dtscodec.fuse([path], tmp_path / "fused.safetensors", base=model.state_dict(), weights=[1.0]),
    ]
    for use in uses:
        with pytest.raises(FormatError, match="without any"):
            use()
