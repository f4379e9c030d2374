"""A fine-tune with its components in some codes: bytes and behaviour."""

import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.codes.components import Offer, encode
from benchmarks.codes.matrices import Rows, changed_matrices
from dtscodec.files.atomic import atomic_file

VECTOR_BITS = 2
"""Bits that count for an element of a bias or a norm. Their deltas are exact, since no code here is theirs."""
CONTAINER_BYTES = 2_500
ROUNDS = 5
"""Rounds of coordinate descent, as in `best`."""


@dataclass(frozen=True, slots=True)
class Point:
    """Figures of one offer of codes at one size.

    Parameters
    ----------
    benchmark, task, size, offer : str
        What was measured; `size` is a share of the checkpoint.
    bytes : int
        All that is counted.
    error : float
        Relative error of the matrices, before the gain.
    kl, agreement : float
        Behaviour against the fine-tune.
    counts : dict
        Components of each code.
    seconds : float
        To encode.
    """

    benchmark: str
    task: str
    size: str
    offer: str
    bytes: int
    error: float
    kl: float
    agreement: float
    counts: dict[str, int]
    seconds: float


class Figures(Protocol):
    """Behaviour of a model against its fine-tune."""

    @property
    def kl(self) -> float:
        """Mean KL(fine-tune || model)."""

    @property
    def agreement(self) -> float:
        """Share of equal predictions."""


class CodedTask(ABC):
    """A fine-tune whose matrices can be stored in any code.

    Parameters
    ----------
    fine, base : Path
        Directories of both models.
    prefix : str
        Prefix of names in the fine-tune that those in the base lack.
    folder : Path
        Where the decomposed matrices are kept.
    """

    benchmark = ""

    def __init__(self, name: str, fine: Path, base: Path, prefix: str, folder: Path) -> None:
        self.name, self._prefix = name, prefix
        self._fine, self._base = (load_file(path / "model.safetensors") for path in (fine, base))
        place = folder / f"codes-{self.benchmark}-{name}.pickle"
        if not place.exists():
            with atomic_file(place) as file:
                pickle.dump(changed_matrices(self._fine, self._base, prefix), file)
        self._matrices: dict[str, list[Rows]] = pickle.loads(place.read_bytes())
        self.nbytes = sum(tensor.nbytes for tensor in self._fine.values())

    @abstractmethod
    def judge(self, state: Mapping[str, Tensor]) -> Figures:
        """Return the behaviour of a model with these tensors."""

    def measure(self, size: str, offer: Offer) -> Point:
        """Store the matrices in the codes of an offer, and measure the model.

        Parameters
        ----------
        size : str
            Percent of the checkpoint, such as ``"0.5%"``.
        offer : Offer
            The codes.
        """
        start = time.perf_counter()
        fixed = self._fixed_bytes()
        budget = round(float(size.rstrip("%")) / 100 * self.nbytes) - fixed
        coded = encode(self._matrices, offer, budget, ROUNDS)
        seconds = time.perf_counter() - start
        figures = self.judge(self._decoded(coded.deltas))
        total = round(coded.size) + fixed
        fields = (self.benchmark, self.name, size, offer.name, total, coded.error, figures.kl, figures.agreement)
        return Point(*fields, coded.counts, round(seconds, 1))

    def _fixed_bytes(self) -> int:
        """Return the bytes of everything but matrices: the same for every offer."""
        total = CONTAINER_BYTES
        for name, tensor in self._fine.items():
            if name.removeprefix(self._prefix) not in self._base:
                total += 2 * tensor.numel()  # A new head, in float16.
            elif name not in self._matrices:
                total += tensor.numel() * VECTOR_BITS // 8
        return total

    def _decoded(self, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state = dict(self._fine)
        for name in self._matrices:
            base = self._base[name.removeprefix(self._prefix)]
            # In float32: rounding to bfloat16 undoes small elements, which would decide more than the codes.
            state[name] = base if name not in deltas else base.float() + deltas[name]
        return state
