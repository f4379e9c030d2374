"""TSV-M (arXiv 2412.00081): the leading singular vectors of each task, made orthonormal among all tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.merging.matrices import Triplets, fuse_by_matrix, share, triplets
from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.methods.method import Fuse, Told
from dtscodec.merging.methods.option_checks import check_number
from dtscodec.merging.methods.polar import polar
from dtscodec.merging.task_vectors import Moves


@dataclass(frozen=True, slots=True)
class TsvM:
    """Base + alpha * (merged task singular vectors; of what is no matrix the tasks' mean).

    Parameters
    ----------
    alpha : float
        Its authors search it up to 3.
    """

    name: ClassVar[str] = "tsv-m"
    passes: ClassVar[int] = 0
    edges: ClassVar[bool] = True
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """How a tensor's moves become one."""
        return _fuse


def _fuse(moves: Moves) -> Tensor:
    return fuse_by_matrix(moves, _fuse_matrices)


def _fuse_matrices(deltas: list[Tensor], edges: list[float]) -> Tensor:
    rank = share(min(deltas[0].shape), len(deltas))
    return decorrelated([triplets(delta, edge).top(rank) for delta, edge in zip(deltas, edges, strict=True)])


def decorrelated(parts: Sequence[Triplets], spectrum: Tensor | None = None) -> Tensor:
    """The product of components of several matrices after both sides are made orthonormal: float64 [m, n].

    Parameters
    ----------
    parts : sequence of Triplets
    spectrum : float64 [k], optional
        What stands for the singular values of all of them.
    """
    u = polar(torch.cat([part.u for part in parts], 1)).factor
    v = polar(torch.cat([part.v for part in parts])).factor
    s = torch.cat([part.s for part in parts]) if spectrum is None else spectrum
    return (u * s) @ v
