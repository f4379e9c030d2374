"""Iso-C and Iso-CTS (arXiv 2502.04959): merged moves whose singular values are all the same."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.merging.matrices import fuse_by_matrix, triplets
from dtscodec.merging.merge_inputs import Tasks
from dtscodec.merging.methods.method import Fuse, Told
from dtscodec.merging.methods.option_checks import check_number, check_share
from dtscodec.merging.methods.tsv import decorrelated
from dtscodec.merging.task_vectors import Moves


@dataclass(frozen=True, slots=True)
class IsoC:
    """Base + alpha * (sum of moves, each singular value replaced by their mean; of what is no matrix the tasks' mean).

    Only directions above the rounding noise count: the others would be lifted to the mean, too.

    Parameters
    ----------
    alpha : float
    """

    name: ClassVar[str] = "iso-c"
    passes: ClassVar[int] = 0
    edges: ClassVar[bool] = True
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """How a tensor's moves become one."""
        return lambda moves: fuse_by_matrix(moves, _isotropic)


@dataclass(frozen=True, slots=True)
class IsoCts:
    """As Iso-C, but a part of the directions is each task's own, of what is orthogonal to the common ones.

    Parameters
    ----------
    alpha : float
    common : float
        Share of a matrix's directions that are common; the tasks share the others equally.
    """

    name: ClassVar[str] = "iso-cts"
    passes: ClassVar[int] = 0
    edges: ClassVar[bool] = True
    alpha: float = 1.0
    common: float = 0.8

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_share("common", self.common)

    def prepare(self, tasks: Tasks, told: Told) -> Fuse:
        """How a tensor's moves become one."""

        def fuse(moves: Moves) -> Tensor:
            return fuse_by_matrix(moves, self._fuse)

        return fuse

    def _fuse(self, deltas: list[Tensor], edges: list[float]) -> Tensor:
        each = own_directions(min(deltas[0].shape), len(deltas), self.common)
        common = triplets(_total(deltas), _edge(edges)).top(min(deltas[0].shape) - each * len(deltas))
        parts = []
        for delta, edge in zip(deltas, edges, strict=True):
            wide = delta.double()
            parts.append(triplets(wide - common.u @ (common.u.T @ wide), max(edge, _residue(wide))).top(each))
        parts.append(common)
        spectrum = torch.cat([part.s for part in parts])
        mean = spectrum.mean() if len(spectrum) else spectrum.sum()
        return decorrelated(parts, mean.expand(len(spectrum)))


def own_directions(side: int, tasks: int, common: float) -> int:
    """How many directions of a matrix's shorter side each task has for itself.

    >>> own_directions(768, 8, 0.8), own_directions(4, 8, 0.8)
    (19, 0)
    """
    return min(round((side - int(common * side)) / tasks), side // tasks)


def _isotropic(deltas: list[Tensor], edges: list[float]) -> Tensor:
    found = triplets(_total(deltas), _edge(edges))
    return (found.u @ found.v) * found.s.mean() if len(found) else found.u @ found.v


def _total(deltas: list[Tensor]) -> Tensor:
    return torch.stack([delta.double() for delta in deltas]).sum(0)


def _edge(edges: list[float]) -> float:
    """The edge of the noise of a sum: variances add up."""
    return math.hypot(*edges)


def _residue(wide: Tensor) -> float:
    """What rounding leaves of a matrix that was projected away."""
    return float(torch.linalg.matrix_norm(wide)) * max(wide.shape) * torch.finfo(torch.float64).eps
