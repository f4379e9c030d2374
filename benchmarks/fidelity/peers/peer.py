"""A peer: a function from the matrices of a delta to decoded ones and a size, and a sweep of settings."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.fidelity.peers.matrices import Matrices

Deltas = Matrices
UNCHANGED = 1  # bytes to say that a matrix did not change
COUNT = 4  # bytes for how many elements are kept, which the code of their positions needs


@dataclass(frozen=True, slots=True)
class Coded:
    """All matrices as a peer codes them.

    Parameters
    ----------
    deltas
        Decoded, float32, under the names that came in.
    size
        Bytes of everything a decoder needs: codes, scales, indices, headers of its own.
    """

    deltas: dict[str, Tensor]
    size: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a peer's sweep.

    Parameters
    ----------
    peer
        Name of the method, such as "BitDelta (per row)".
    label
        What is particular to this point, such as "rank 4".
    code
        Deltas and a seed to what is decoded of them; the seed is ignored unless `random`.
    random
        Whether the seed matters.
    calibrated
        Whether `code` makes use of calibration texts.
    """

    peer: str
    label: str
    code: Callable[[Deltas, int], Coded]
    random: bool = False
    calibrated: bool = False


def by_matrix(deltas: Deltas, code: Callable[[str, Tensor], tuple[Tensor, int]]) -> Coded:
    """Code matrices one by one, each to its decoded form and bytes; what did not change is left out."""
    decoded, size = {}, 0
    for name, delta in deltas.items():
        decoded[name], cost = code(name, delta) if delta.any() else (torch.zeros_like(delta), UNCHANGED)
        size += cost
    return Coded(decoded, size)


def leaving_embeddings(setting: Setting) -> Setting:
    """The same setting with embeddings left at the base's: no bytes, and no delta."""

    def code(deltas: Deltas, seed: int) -> Coded:
        coded = setting.code(deltas.without_embeddings(), seed)
        decoded = {name: coded.deltas.get(name, torch.zeros_like(delta)) for name, delta in deltas.items()}
        return Coded(decoded, coded.size)

    return replace(setting, label=f"{setting.label}, embeddings left", code=code)


def whole_bytes(bits: float) -> int:
    """Bytes that so many bits take."""
    return math.ceil(bits / 8)


def choice_bits(count: int, chosen: int) -> float:
    """Entropy of which ``chosen`` of ``count`` elements are meant: the logarithm of the binomial coefficient.

    >>> round(2 ** choice_bits(5, 2))
    10
    """
    nats = math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
    return max(0.0, nats / math.log(2))
