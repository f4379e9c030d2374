"""A fine-tune's weights beside its base's: what peers code, and the models that come of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.language.base import base_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.tasks import Task

FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors of base and fine-tune, bfloat16, by the same names.

    Parameters
    ----------
    base, fine : mapping of str to Tensor
        All tensors.
    """

    base: Mapping[str, Tensor]
    fine: Mapping[str, Tensor]

    @classmethod
    def of(cls, task: Task, cache: Path) -> "Weights":
        """Read both checkpoints."""
        return cls(load_file(base_directory(cache) / FILE), load_file(fine_tune(task, cache) / FILE))

    @property
    def nbytes(self) -> int:
        """Bytes of the fine-tune's tensors."""
        return sum(tensor.nbytes for tensor in self.fine.values())

    def matrices(self) -> dict[str, Tensor]:
        """Return the deltas of two dimensions, in float32."""
        fine = self.fine.items()
        return {name: tensor.float() - self.base[name].float() for name, tensor in fine if tensor.ndim == 2}

    def decoded(self, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the model that these deltas make of the base, in float32; other tensors are the base's.

        In bfloat16, to which our own packs are decoded, rounding to nearest would lose most of a small delta.
        """
        return {**self.base, **{name: self.base[name].float() + delta for name, delta in deltas.items()}}

    def error(self, state: Mapping[str, Tensor]) -> float:
        """Return the relative Frobenius error of a model's delta, over all tensors."""
        missed = whole = 0.0
        for name, tensor in self.fine.items():
            missed += float((state[name].double() - tensor.double()).square().sum())
            whole += float((self.base[name].double() - tensor.double()).square().sum())
        return float((missed / whole) ** 0.5)

    def changed_share(self) -> float:
        """Return the share of elements that differ from the base's."""
        changed = sum(int((tensor != self.base[name]).sum()) for name, tensor in self.fine.items())
        return changed / sum(tensor.numel() for tensor in self.fine.values())

    def relative_norm(self) -> float:
        """Return the Frobenius norm of the delta by that of the base."""
        delta = sum(
            float((tensor.double() - self.base[name].double()).square().sum()) for name, tensor in self.fine.items()
        )
        return float((delta / sum(float(tensor.double().square().sum()) for tensor in self.base.values())) ** 0.5)
