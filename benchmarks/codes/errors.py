"""Squared error at equal bytes, on the matrices of a layer: free of the noise that behaviour has, and fast."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.codes.components import encode
from benchmarks.codes.matrices import Rows, changed_matrices
from benchmarks.codes.offers import TODAY, offer_of

SHAPE = (288, 576)
"""Of a synthetic matrix."""
ROUNDS = 5
"""Rounds of coordinate descent, as in `best`."""
GROWTH = (1.0, 1.15, 1.3)
"""Multiples of the budget at which today's codes are measured, to see what bytes reach another code's error."""


@dataclass(frozen=True, slots=True)
class ErrorPoint:
    """Error of some matrices in the codes of an offer.

    Parameters
    ----------
    benchmark, size, offer : str
        What was measured.
    error : float
        Relative error, before the gain.
    bytes_ratio : float
        Bytes, relative to those that today's codes need for the same error, by interpolation of logarithms.
    """

    benchmark: str
    size: str
    offer: str
    error: float
    bytes_ratio: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Some changed matrices of a fine-tune.

    Parameters
    ----------
    matrices : dict
        See `changed_matrices`.
    nbytes : int
        Their bytes in the checkpoint.
    """

    matrices: dict[str, list[Rows]]
    nbytes: int

    @classmethod
    def of(cls, fine: Path, base: Path, prefix: str, layers: Iterable[int]) -> "Sample":
        """Return the matrices of some layers.

        Parameters
        ----------
        fine, base : Path
            Directories of both models.
        prefix : str
            Prefix of names in the fine-tune that those in the base lack.
        layers : iterable of int
            Numbers of layers.
        """
        tensors, others = (load_file(path / "model.safetensors") for path in (fine, base))
        marks = [f".{layer}." for layer in layers]
        chosen = {name: tensor for name, tensor in tensors.items() if any(mark in name for mark in marks)}
        matrices = changed_matrices(chosen, others, prefix)
        return cls(matrices, sum(tensors[name].nbytes for name in matrices))

    @classmethod
    def power_law(cls, exponent: float) -> "Sample":
        """Return one matrix in float16 with random singular vectors, whose singular values fall as a power."""
        random = torch.Generator().manual_seed(0)
        left, right = (torch.linalg.qr(torch.randn(side, SHAPE[0], generator=random))[0] for side in SHAPE)
        matrix = (left * torch.arange(1, SHAPE[0] + 1).pow(-exponent)) @ right.T
        return cls(changed_matrices({"w": matrix}, {"w": torch.zeros(SHAPE)}, ""), 2 * matrix.numel())


def error_points(benchmark: str, sample: Sample, size: str, offers: Iterable[str]) -> Iterator[ErrorPoint]:
    """Yield the errors of some offers at one size.

    Parameters
    ----------
    benchmark : str
        For the table.
    sample : Sample
        The matrices.
    size : str
        Percent of their bytes, such as ``"0.5%"``.
    offers : iterable of str
        Names of `OFFERS`.
    """
    matrices, budget = sample.matrices, float(size.rstrip("%")) / 100 * sample.nbytes
    today = [encode(matrices, offer_of(TODAY), round(budget * growth), ROUNDS) for growth in GROWTH]
    slope = math.log(today[-1].error / today[0].error) / math.log(today[-1].size / today[0].size)
    for name in offers:
        coded = today[0] if name == TODAY else encode(matrices, offer_of(name), round(budget), ROUNDS)
        same_error = today[0].size * (coded.error / today[0].error) ** (1 / slope)
        yield ErrorPoint(benchmark, size, name, coded.error, coded.size / same_error)
