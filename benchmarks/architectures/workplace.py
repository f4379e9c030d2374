"""A base and two fine-tunes of an architecture on disk, their packs, and the models that they must give."""

import copy
import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import dtscodec
from benchmarks.architectures.architecture import Architecture

SIZE = dtscodec.Size.parse("50%")
"""Size of the packs: the relative error is then far below 1 %."""
State: TypeAlias = dict[str, Tensor]
Changed: TypeAlias = Literal["all", "linear"]
"""Which tensors a fine-tune changes: five in six of all, or the weights of linear layers only."""


@dataclass(frozen=True)
class Task:
    """A fine-tune on disk and its pack."""

    folder: Path
    pack: Path
    relative_error: float


class Workplace:
    """A base and fine-tunes of an architecture, made on first use.

    Parameters
    ----------
    architecture : Architecture
    folder : Path
        An empty folder.
    """

    def __init__(self, architecture: Architecture, folder: Path) -> None:
        self.architecture, self.library, self.folder = architecture, architecture.library, folder
        self.base_folder = folder / "base"
        torch.manual_seed(0)
        self._base = (architecture.build_base or architecture.build)().eval()
        self.like = architecture.build().eval()
        self.like.load_state_dict(_start_from(self._base, self.like))
        self.library.save(self._base, self.base_folder)
        self._tasks: dict[Changed, Task] = {}

    def task(self, changed: Changed = "all") -> Task:
        """Return a fine-tune and its pack."""
        if changed not in self._tasks:
            fine = copy.deepcopy(self.like)
            perturb(fine, changed)
            folder, pack = self.folder / changed, self.folder / f"{changed}.dts.safetensors"
            self.library.save(fine, folder)
            config = dtscodec.EncodeConfig(target=SIZE)
            report = dtscodec.encode(self.base_folder, folder, pack, config)
            self._tasks[changed] = Task(folder, pack, report.relative_error)
        return self._tasks[changed]

    def base_model(self) -> Any:
        """Return a new model of the fine-tunes' class that holds the base."""
        return self.library.load(self.like, self.base_folder, strict=self.architecture.build_base is None)

    def load(self, folder: Path, strict: bool = True) -> Any:
        """Return the model in a directory, as its library loads it."""
        return self.library.load(self.like, folder, strict)

    def outputs(self, model: Any) -> Tensor:
        """Return a model's outputs on the inputs of the architecture."""
        return self.library.outputs(model, self.architecture.inputs())

    @cached_property
    def base_outputs(self) -> Tensor:
        """Outputs of the base."""
        return self.outputs(self.base_model())

    def decoded_model(self, changed: Changed = "all", at_base: Collection[str] = ()) -> Any:
        """Return the model with the decoded tensors, written to disk by safetensors and loaded by its library.

        Parameters
        ----------
        changed : Changed
            Which fine-tune.
        at_base : collection of str
            Tensors that have the base's values. One without a counterpart is left out.
        """
        task = self.task(changed)
        with dtscodec.decode(task.pack, self.base_folder) as decoded:
            state = dict(decoded)
        base = read_folder(self.base_folder)
        for name in at_base:
            counterpart = counterpart_in(base, name)
            if counterpart is None:
                del state[name]
            else:
                state[name] = counterpart
        target = self.folder / f"{changed}-by-safetensors"
        shutil.rmtree(target, ignore_errors=True)
        rewrite(task.folder, target, state)
        return self.load(target, strict=len(state) == len(read_folder(task.folder)))


def perturb(model: nn.Module, changed: Changed) -> None:
    """Change parameters as training does: a low-rank part, and a little noise in all elements."""
    random = torch.Generator().manual_seed(1)
    if changed == "linear":
        layers: list[Any] = [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D)]
        # The weight of a head may be tied to an embedding, which such a task leaves alone.
        others = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        parameters = [layer.weight for layer in layers if id(layer.weight) not in others]
    else:
        parameters = [parameter for i, parameter in enumerate(model.parameters()) if i % 6 != 5]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(_delta_like(parameter, random))


def _delta_like(tensor: Tensor, random: torch.Generator, rank: int = 2) -> Tensor:
    scale = 0.3 * float(tensor.std()) if tensor.numel() > 1 and tensor.std() > 0 else 0.05
    delta = torch.randn(tensor.shape, generator=random)
    if tensor.ndim > 1:
        left = torch.randn(*tensor.shape[:-1], rank, generator=random)
        right = torch.randn(*tensor.shape[:-2], rank, tensor.shape[-1], generator=random)
        delta = 0.2 * delta + (left @ right) / math.sqrt(rank)
    return scale * delta


def _start_from(base: nn.Module, fine: nn.Module) -> State:
    """Return the state of `fine` with the tensors of `base` in it; `fine` may wrap a model of the class of `base`."""
    start = base.state_dict()
    return {name: _or(counterpart_in(start, name), tensor) for name, tensor in fine.state_dict().items()}


def _or(found: Tensor | None, other: Tensor) -> Tensor:
    return other if found is None else found


def counterpart_in(base: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the base's tensor of this name, or of the name without its first part."""
    return base.get(name, base.get(name.partition(".")[2]))


# Model directories, by safetensors alone


def read_folder(folder: Path) -> State:
    """Return the tensors of a model directory, those of a module's folder under ``FOLDER/NAME``."""
    state: State = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            state |= {_name(path, folder, name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return state


def rewrite(source: Path, target: Path, state: Mapping[str, Tensor]) -> None:
    """Copy a model directory with other tensors: those of `state`, under the names of `read_folder`."""
    shutil.copytree(source, target)
    for path in sorted(target.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names, metadata = list(file.keys()), file.metadata()
        found = {name: state[known] for name in names if (known := _name(path, target, name)) in state}
        save_file({name: tensor.contiguous().clone() for name, tensor in found.items()}, path, metadata)


def _name(path: Path, folder: Path, name: str) -> str:
    return (path.relative_to(folder).parent / "_").as_posix()[:-1] + name
