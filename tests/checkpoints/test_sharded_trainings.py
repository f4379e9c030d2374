"""The commands that messages name for shards of a training do what they promise."""

import runpy
import shlex
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError

STATE = {"layer.weight": torch.arange(12.0).view(3, 4), "layer.bias": torch.ones(3)}


def save_shards(directory: Path, state: object) -> None:
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It saves in a single process, as is meant here.
        checkpoint.save(state, checkpoint_id=str(directory), no_dist=True)


def remedy_for(directory: Path) -> list[str]:
    """The command that the error about a directory names."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(directory)
    return shlex.split(str(caught.value).split("merge ")[1].split(": ", 1)[1])


def test_shards_of_fsdp_are_merged_by_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate = pytest.importorskip("accelerate.commands.accelerate_cli")
    save_shards(tmp_path / "run/pytorch_model_fsdp_0", {"model": STATE})
    program, command, source, _ = remedy_for(tmp_path / "run")
    assert (program, command) == ("accelerate", "merge-weights")
    monkeypatch.setattr(sys, "argv", [program, command, source, str(tmp_path / "out")])
    accelerate.main()
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert set(checkpoint.specs) == set(STATE)


def test_shards_of_torch_are_merged_by_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_shards(tmp_path / "run", {"model": STATE, "step": 3})
    python, option, module, mode, source, _ = remedy_for(tmp_path / "run")
    assert (python, option) == ("python", "-m")
    out = str(tmp_path / "out.pt")
    monkeypatch.setattr(sys, "argv", [module, mode, source, out])
    monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_module(module, run_name="__main__")
    with open_checkpoint(out) as checkpoint:
        assert set(checkpoint.specs) == set(STATE)
