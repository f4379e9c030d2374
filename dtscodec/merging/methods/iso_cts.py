"""Iso-CTS (arXiv 2502.04959): an isotropic spectrum over common and task-specific directions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.linalg.svd import triplets
from dtscodec.merging.by_matrix import combine_by_matrix
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.iso_c import edge_of_sum, sum_matrices
from dtscodec.merging.methods.method import Combine, MergeMethod, check_number, check_share
from dtscodec.merging.methods.tsv_m import decorrelate
from dtscodec.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class IsoCts(MergeMethod):
    """As Iso-C, but with some directions for each task, orthogonal to the common ones.

    Parameters
    ----------
    alpha : float
        Scale of the merged task vector.
    common : float
        Share of a matrix's directions that are common. The tasks share the others equally.
    """

    name: ClassVar[str] = "iso-cts"
    needs_noise_edges: ClassVar[bool] = True
    alpha: float = 1.0
    common: float = 0.8

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_share("common", self.common)

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine:
        """Return the function that merges one tensor."""
        return lambda vectors: combine_by_matrix(vectors, self._merge_matrices)

    def _merge_matrices(self, deltas: list[Tensor], noise_edges: list[float]) -> Tensor:
        """Merge the task vectors of one matrix: float64 [m, n]."""
        side = min(deltas[0].shape)
        each = task_directions(side, len(deltas), self.common)
        # Common subspace: leading singular triplets of the sum.
        common = triplets(sum_matrices(deltas), edge_of_sum(noise_edges)).top(side - each * len(deltas))
        # Task-specific subspaces: leading triplets of what each task has outside the common subspace.
        parts = []
        for delta, edge in zip(deltas, noise_edges, strict=True):
            wide = delta.double()
            parts.append(triplets(wide - common.u @ (common.u.T @ wide), max(edge, _residue(wide))).top(each))
        parts.append(common)
        # Whitening across all subspaces, and isotropic scaling.
        spectrum = torch.cat([part.s for part in parts])
        mean = spectrum.mean() if len(spectrum) else spectrum.sum()
        return decorrelate(parts, mean.expand(len(spectrum)))


def task_directions(side: int, tasks: int, common: float) -> int:
    """Return the number of task-specific directions of a matrix, per task.

    Parameters
    ----------
    side : int
        The matrix's shorter side.
    tasks : int
        Number of tasks.
    common : float
        Share of the directions that are common.

    Examples
    --------
    >>> task_directions(768, 8, 0.8), task_directions(4, 8, 0.8)
    (19, 0)
    """
    return min(round((side - int(common * side)) / tasks), side // tasks)


def _residue(wide: Tensor) -> float:
    """Return the rounding error of a projection: singular values below it are zero in exact arithmetic."""
    return float(torch.linalg.matrix_norm(wide)) * max(wide.shape) * torch.finfo(torch.float64).eps
