"""TSV-M (arXiv 2412.00081): leading singular vectors of each task, whitened across tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dtscodec.linalg.svd import Triplets, triplets
from dtscodec.merging.by_matrix import combine_by_matrix, components_per_task, polar
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.methods.method import Combine, MergeMethod, check_number
from dtscodec.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class TsvM(MergeMethod):
    """Base + alpha * merged task singular vectors. Tensors that are not matrices get the mean of the task vectors.

    Parameters
    ----------
    alpha : float
        Scale of the merged task vector. The authors search it up to 3.
    """

    name: ClassVar[str] = "tsv-m"
    needs_noise_edges: ClassVar[bool] = True
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)

    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine:
        """Return the function that merges one tensor."""
        return lambda vectors: combine_by_matrix(vectors, _merge_matrices)


def _merge_matrices(deltas: list[Tensor], noise_edges: list[float]) -> Tensor:
    """Merge the task vectors of one matrix: float64 [m, n]."""
    # Compress: of each task retain the leading singular triplets, an equal share.
    rank = components_per_task(min(deltas[0].shape), len(deltas))
    parts = [triplets(delta, edge).top(rank) for delta, edge in zip(deltas, noise_edges, strict=True)]
    # Decorrelate the tasks' singular vectors, and multiply out.
    return decorrelate(parts)


def decorrelate(parts: Sequence[Triplets], spectrum: Tensor | None = None) -> Tensor:
    """Return the product of the tasks' components after whitening: float64 [m, n].

    The left singular vectors of all tasks, side by side, and the right ones, stacked, are each replaced by the nearest
    orthonormal matrix (Procrustes), so that tasks no longer interfere.

    Parameters
    ----------
    parts : sequence of Triplets
        Components of each task.
    spectrum : float64 [k], optional
        Singular values to use in place of those of the k components.
    """
    # Whitening: the nearest orthonormal matrix on either side.
    u = polar(torch.cat([part.u for part in parts], 1)).factor
    v = polar(torch.cat([part.v for part in parts])).factor
    s = torch.cat([part.s for part in parts]) if spectrum is None else spectrum
    return (u * s) @ v
