"""The fine-tunes that everything is measured on: four of two classes, one of sixteen, and one with a merged LoRA."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.demo import data
from benchmarks.demo.finetune import Settings, base_directory, finetune
from benchmarks.fidelity.lora import finetune_lora

TWO_CLASSES = tuple(data.FILES)
FULL = data.TASKS
LORA = "tweets-lora"
PREFIX = "bert."
"""Prefix of names in a fine-tune that those in the base lack."""


@dataclass(frozen=True, slots=True)
class Task:
    """A fine-tune of the base on all texts to train on of one task, two epochs.

    Parameters
    ----------
    name
        Of `FULL`, or `LORA`.
    seed
        Of training; the head that training starts from is always the same.
    """

    name: str
    seed: int = 0

    @property
    def domain(self) -> str:
        """The task as `benchmarks.demo.data` knows it."""
        return self.name.removesuffix("-lora")

    def directory(self, cache: Path) -> Path:
        """The model directory; made where it is missing."""
        settings = Settings(self.domain, None, 2, self.seed)
        if self.name == LORA:
            folder = cache / f"{settings.key}-lora" / self.name
            finetune_lora(base_directory(), folder, settings, cache)
            return folder
        folder = cache / settings.key / self.name
        finetune(base_directory(), folder, settings, cache)
        return folder


@dataclass(frozen=True, slots=True)
class Weights:
    """A fine-tune's tensors, and what training added to the base's.

    Parameters
    ----------
    fine
        All tensors.
    deltas
        Of those that the base has.
    """

    fine: Mapping[str, Tensor]
    deltas: Mapping[str, Tensor]

    @classmethod
    def of(cls, directory: Path) -> "Weights":
        """Read both checkpoints."""
        fine, base = (load_file(folder / "model.safetensors") for folder in (directory, base_directory()))
        common = {name: base[short] for name in fine if (short := name.removeprefix(PREFIX)) in base}
        return cls(fine, {name: fine[name] - other for name, other in common.items()})

    def matrices(self) -> dict[str, Tensor]:
        """The deltas of two dimensions."""
        return {name: delta for name, delta in self.deltas.items() if delta.ndim == 2}

    def head_bytes(self) -> int:
        """Bytes of what the base lacks, in float16."""
        return sum(2 * tensor.numel() for name, tensor in self.fine.items() if name not in self.deltas)

    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.fine.values())

    def decoded(self, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model that these deltas make of the base, with the head in float16; other tensors are the base's."""
        state = {name: tensor.half().float() for name, tensor in self.fine.items() if name not in self.deltas}
        for name, delta in self.deltas.items():
            base = self.fine[name] - delta
            state[name] = base + deltas[name] if name in deltas else base
        return state

    def error(self, state: Mapping[str, Tensor]) -> float:
        """Relative Frobenius error of a model's delta, over all tensors that the base has."""
        missed = sum(float((state[name] - self.fine[name]).double().square().sum()) for name in self.deltas)
        whole = sum(float(delta.double().square().sum()) for delta in self.deltas.values())
        return float((missed / whole) ** 0.5)
