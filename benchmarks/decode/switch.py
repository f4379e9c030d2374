"""Changing a resident model of 22.7 M parameters from one task to another, and decoding a whole checkpoint."""

from typing import Any

import torch
from safetensors.torch import load_file

import dtscodec
from benchmarks.common.timing import median_times
from benchmarks.decode.floor import Floor
from benchmarks.decode.packs import PREFIX, SIZES, TASKS, Made, base_model, made
from benchmarks.demo.finetune import base_directory
from dtscodec.decoding.reconstruct import LoadedTensor, load_tensors
from dtscodec.format.blocks import Same


def switch_rows() -> list[dict[str, Any]]:
    """Seconds of a change, of its floor, and of loading the whole fine-tune into the same model, by size."""
    return [_switch_row(size) for size in SIZES]


def checkpoint_rows() -> list[dict[str, Any]]:
    """Seconds of decoding a whole checkpoint into memory, of its floor, and of loading the fine-tune, by size."""
    return [_checkpoint_row(size) for size in SIZES]


def changes(pack: dtscodec.Pack) -> dict[str, LoadedTensor]:
    """The tensors that a pack changes, loaded."""
    names = [
        entry.name for entry in pack.index.tensors if not isinstance(entry.blocks[0], Same) or len(entry.blocks) > 1
    ]
    return load_tensors(pack.reader, names, torch.device("cpu"))


def base_tensors() -> dict[str, torch.Tensor]:
    """The base under the names of the fine-tunes."""
    return {f"{PREFIX}{name}": tensor for name, tensor in load_file(base_directory() / "model.safetensors").items()}


def _switch_row(size: str) -> dict[str, Any]:
    one, other = (made(task, size) for task in TASKS)
    model = base_model()
    switcher = dtscodec.Switcher(model, packs={task.task: task.pack for task in (one, other)})
    floors = _floors(one, other)
    target = base_model()
    turn = {"switch": 0, "floor": 0, "load": 0}

    def both(name: str) -> int:
        turn[name] += 1
        return turn[name] % 2

    def load() -> None:
        target.load_state_dict(load_file((one, other)[both("load")].directory / "model.safetensors"))

    def floor() -> None:
        for step in floors[both("floor")]:
            step()

    seconds = median_times(
        {"ours": lambda: switcher.activate(TASKS[both("switch")]), "floor": floor, "load the fine-tune": load},
        turns=40,
    )
    return {"size": size, "seconds": seconds, "pack_bytes": [task.pack.stat().st_size for task in (one, other)]}


def _floors(one: Made, other: Made) -> list[Any]:
    """The steps to each task from the other."""
    with dtscodec.open(one.pack) as first, dtscodec.open(other.pack) as second:
        loaded = [changes(first), changes(second)]
    with torch.no_grad():
        out = {name: tensor.detach() for name, tensor in base_model().state_dict().items()}
    floor = Floor(base_tensors(), out)
    return [floor.steps(loaded[task], list(loaded[1 - task])) for task in (0, 1)]


def _checkpoint_row(size: str) -> dict[str, Any]:
    task = made(TASKS[0], size)
    base = dtscodec.Base(load_file(base_directory() / "model.safetensors"))
    with dtscodec.open(task.pack) as pack:
        loaded = changes(pack)
    tensors = base_tensors()
    out = {name: torch.empty(change.entry.spec.shape) for name, change in loaded.items()}
    steps = Floor(tensors, out).steps(loaded)
    with dtscodec.open(task.pack) as pack:
        names = [entry.name for entry in pack.index.tensors if entry.name not in loaded]
    still = {name: torch.empty_like(tensors[name]) for name in names}

    def floor() -> None:
        for step in steps:
            step()
        for name, tensor in still.items():
            tensor.copy_(tensors[name])

    def ours() -> None:
        with dtscodec.decode(task.pack, base) as decoded:
            dict(decoded)

    def load() -> None:
        dict(load_file(task.directory / "model.safetensors"))

    seconds = median_times({"ours": ours, "floor": floor, "load the fine-tune": load})
    return {"size": size, "seconds": seconds, "pack_bytes": task.pack.stat().st_size}
