"""The packs that are measured: of two real fine-tunes, and of a hundred that differ from them."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import dtscodec
from benchmarks.demo.commands import ROOT
from benchmarks.demo.finetune import Settings, base_directory, finetune, load_model

CACHE = ROOT / ".demo"
TASKS = ("movie", "tweets")
SIZES = ("0.1%", "0.5%")
PREFIX = "bert."


@dataclass(frozen=True)
class Made:
    """A fine-tune, and a pack of it at some size."""

    task: str
    size: str
    directory: Path
    pack: Path


def made(task: str, size: str) -> Made:
    """A task's fine-tune as the demo makes it, and its pack; what is there is used again."""
    settings = Settings(task, 1400)
    folder = CACHE / settings.key / task
    finetune(base_directory(), folder, settings, CACHE)
    pack = CACHE / settings.key / f"{task}-{size}.dts.safetensors"
    if not pack.exists():
        config = dtscodec.EncodeConfig(target=dtscodec.Size.parse(size))
        dtscodec.encode(base_directory(), folder, pack, config, task=task)
    return Made(task, size, folder, pack)


def base_model() -> Any:
    """The model of the fine-tunes' class that holds the base's weights; its head is the first task's."""
    model: Any = load_model(base_directory(), num_labels=2)
    model.eval()
    fine = load_file(made(TASKS[0], SIZES[0]).directory / "model.safetensors")
    model.load_state_dict({name: fine[name] for name in ("classifier.weight", "classifier.bias")}, strict=False)
    return model


def many(count: int, size: str) -> Iterator[Path]:
    """Packs of fine-tunes that differ: each is a real one's delta, half of it replaced by noise of the same norm."""
    folder = CACHE / f"many-{size}"
    folder.mkdir(exist_ok=True)
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    with pool:
        yield from pool.map(
            _one_of_many, [(number, size, folder / f"{number}.dts.safetensors") for number in range(count)]
        )


def _one_of_many(which: tuple[int, str, Path]) -> Path:
    number, size, out = which
    if not out.exists():
        fine = load_file(made(TASKS[number % len(TASKS)], size).directory / "model.safetensors")
        base = load_file(base_directory() / "model.safetensors")
        random = torch.Generator().manual_seed(number)
        state = {name: _varied(tensor, base.get(name.removeprefix(PREFIX)), random) for name, tensor in fine.items()}
        dtscodec.encode(base, state, out, dtscodec.EncodeConfig(target=dtscodec.Size.parse(size)), task=str(number))
    return out


def _varied(fine: Tensor, base: Tensor | None, random: torch.Generator) -> Tensor:
    if base is None or torch.equal(fine, base):
        return fine
    delta = fine - base
    noise = torch.randn(delta.shape, generator=random) * (delta.norm() / delta.numel() ** 0.5)
    varied: Tensor = base + (delta + noise) / 2**0.5
    return varied
