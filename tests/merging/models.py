"""Small models for merging: a base and fine-tunes of it, in memory."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import dtscodec
from dtscodec.merging.methods.method import MergeMethod
from tests.merging.naive import Model

State = dict[str, Tensor]

SHAPES = {
    "layer.0.up.weight": (24, 12),
    "layer.1.up.weight": (24, 12),
    "layer.0.down.weight": (12, 24),
    "layer.0.bias": (24,),
    "conv.weight": (4, 3, 3, 3),
}


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def base_state() -> State:
    return {name: normal(at, *shape) for at, (name, shape) in enumerate(SHAPES.items())}


def task_state(task: int, scale: float = 0.1, dtype: torch.dtype = torch.float32) -> State:
    """A fine-tune of it."""
    moved = {name: normal(100 * task + at + 7, *shape, scale=scale) for at, (name, shape) in enumerate(SHAPES.items())}
    return {name: (value + moved[name]).to(dtype) for name, value in base_state().items()}


def task_states(count: int = 3) -> list[State]:
    """Fine-tunes that moved by various amounts."""
    return [task_state(task, 0.05 * (task + 1)) for task in range(count)]


def wide(state: State) -> Model:
    return {name: value.double().numpy() for name, value in state.items()}


def merged(states: list[State], method: str | MergeMethod, folder: Path, base: State | None, **more: object) -> Model:
    """What a merge gives, as numbers."""
    out = folder / "merged.safetensors"
    dtscodec.merge(states, out, method, base, force=True, **more)  # type: ignore[arg-type]
    return {name: value.double().numpy() for name, value in load_file(out).items()}


def assert_close(ours: Model, theirs: Model, tolerance: float = 2e-6) -> None:
    """Equal, but for rounding of the result to float32."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.abs(ours[name] - value).max() < tolerance, name
