"""Singular triplets of a matrix up to its numerical rank."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.errors import MergeError


@dataclass(frozen=True, slots=True)
class Triplets:
    """Singular triplets: u float64 [m, k], s float64 [k] descending, v float64 [k, n]."""

    u: Tensor
    s: Tensor
    v: Tensor

    def top(self, count: int) -> "Triplets":
        """The first of them."""
        return Triplets(self.u[:, :count], self.s[:count], self.v[:count])

    def __len__(self) -> int:
        return len(self.s)


def triplets(matrix: Tensor, edge: float = 0.0) -> Triplets:
    """The singular triplets of a matrix, up to its numerical rank.

    Parameters
    ----------
    matrix : float [m, n]
    edge : float
        Singular values up to this one are noise.

    Raises
    ------
    MergeError
        LAPACK did not converge.
    """
    with lapack_errors():
        u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = numerical_rank(s, matrix.shape, edge)
    return Triplets(u[:, :rank], s[:rank], v[:rank])


def numerical_rank(s: Tensor, shape: Sequence[int], edge: float = 0.0) -> int:
    """How many of some singular values, descending, are more than rounding of float64 and than an edge."""
    if not len(s):
        return 0
    least = max(edge, float(s[0]) * max(shape) * torch.finfo(torch.float64).eps)
    return int((s > least).sum())


@contextmanager
def lapack_errors() -> Iterator[None]:
    """Failures of LAPACK as MergeError."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise MergeError(f"expected a singular value decomposition, got '{str(error).splitlines()[0]}'") from error
