"""Models that hold a base, and packs of fine-tunes of it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dtscodec
from dtscodec.runtime.branches.branch_for_layer import branch_class
from tests import models
from tests.support import make_pack

SHARED = ("relative_attention_bias", "encoder.embed_positions")
"""Embeddings of T5 and Whisper from which all requests share rows."""


@dataclass
class Tasks:
    """A base, and packs of two fine-tunes of it.

    `model` is of the fine-tunes' class and holds the base's weights; `plain` is a copy that is never written.
    """

    model: Any
    plain: Any
    base: dict[str, Tensor]
    packs: dict[str, Path]
    inputs: dict[str, Tensor]

    def decoded(self, task: str) -> dict[str, Tensor]:
        with dtscodec.decode(self.packs[task], self.base) as state:
            return dict(state)

    def model_of(self, task: str | None) -> Any:
        """Return a new model with a task's decoded weights."""
        model = copy.deepcopy(self.plain)
        if task is not None:
            model.load_state_dict(self.decoded(task), strict=False)
        return model

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the model's present weights."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def make_tasks(name: str, folder: Path, attachable: bool = False, **settings: Any) -> Tasks:
    """Make packs of two fine-tunes; with `attachable` they change only layers that can have a side branch."""
    pair = models.make_pair(name)
    model = copy.deepcopy(pair.fine)
    model.load_state_dict(models.start_from(pair.base, pair.fine))
    base = {key: tensor.clone() for key, tensor in pair.base.state_dict().items()}
    packs = {}
    for seed, task in enumerate(("one", "two"), start=5):
        fine = copy.deepcopy(model)
        if attachable:
            perturb_layers(fine, seed)
        else:
            models.perturb(fine, seed)
        packs[task] = make_pack(
            base, fine.state_dict(), folder / task, **(settings or {"target": dtscodec.RankShare(0.1)})
        ).path
    return Tasks(model, copy.deepcopy(model), base, packs, pair.architecture.inputs())


def perturb_layers(model: nn.Module, seed: int) -> None:
    """Change the parameters of every layer that can have a side branch."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dict.fromkeys(attachable_parameters(model)):
            parameter.data += models.delta_like(parameter, random)


def attachable_parameters(model: Any) -> Iterator[nn.Parameter]:
    for name, module in model.named_modules():
        if branch_class(module) is not None and not any(part in name for part in SHARED):
            yield from module.parameters(recurse=False)


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
