"""Iso-C (arXiv 2502.04959): the sum of the task vectors with an isotropic spectrum."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.linalg.svd import triplets
from dtscodec.merging.by_matrix import combine_by_matrix
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import Combine, MergeMethod, check_number
from dtscodec.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class IsoC(MergeMethod):
    """Base + alpha * sum of the task vectors, with each singular value replaced by the mean of all.

    Tensors that are not matrices get the mean of the task vectors. Directions below the noise edge are left out:
    they would be raised to the mean, too.

    Parameters
    ----------
    alpha : float
        Scale of the merged task vector.
    """

    name: ClassVar[str] = "iso-c"
    needs_noise_edges: ClassVar[bool] = True
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine:
        """Return the function that merges one tensor."""
        return lambda vectors: combine_by_matrix(vectors, _merge_matrices)


def _merge_matrices(deltas: list[Tensor], noise_edges: list[float]) -> Tensor:
    """Merge the task vectors of one matrix: float64 [m, n]."""
    found = triplets(sum_matrices(deltas), edge_of_sum(noise_edges))
    # Isotropic scaling: U diag(mean) V^T.
    return (found.u @ found.v) * found.s.mean() if len(found) else found.u @ found.v


def sum_matrices(deltas: list[Tensor]) -> Tensor:
    """Return the sum of matrices: float64 [m, n]."""
    return torch.stack([delta.double() for delta in deltas]).sum(0)


def edge_of_sum(noise_edges: list[float]) -> float:
    """Return the noise edge of a sum of task vectors: variances of independent noise add up."""
    return math.hypot(*noise_edges)
