"""Singular value decompositions in full: in float32, in float64 up to the numerical rank, and of a factored matrix."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.errors import SvdError
from dtscodec.linalg.factored_matrix import Factored

NEGLIGIBLE = 1e-6
"""Singular values of a factored matrix up to this share of the largest are rounding: half precision holds no more."""


@dataclass(frozen=True, slots=True)
class Triplets:
    """Singular triplets of a matrix.

    Parameters
    ----------
    u : float64 [m, k]
        Left singular vectors.
    s : float64 [k]
        Singular values, descending.
    v : float64 [k, n]
        Right singular vectors.
    """

    u: Tensor
    s: Tensor
    v: Tensor

    def top(self, count: int) -> "Triplets":
        """Return the first `count` triplets."""
        return Triplets(self.u[:, :count], self.s[:count], self.v[:count])

    def __len__(self) -> int:
        return len(self.s)


def truncated_svd(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular triplets of a matrix (DTS equation 2).

    Parameters
    ----------
    delta : float32 [m, n]
        Finite.
    rank : int
        At most min(m, n).

    Returns
    -------
    u : float32 [m, rank]
        Orthonormal columns; the entry of largest magnitude of each (the first one on ties) is positive.
    s : float32 [rank]
        Singular values, descending.
    v : float32 [rank, n]
        Orthonormal rows.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    with lapack_errors():
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
    return canonical_signs(u[:, :rank], s[:rank], v[:rank])


def triplets(matrix: Tensor, edge: float = 0.0) -> Triplets:
    """Return the singular triplets of a matrix in float64, up to its numerical rank.

    Parameters
    ----------
    matrix : float [m, n]
    edge : float
        Singular values up to this one are noise.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    with lapack_errors():
        u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = numerical_rank(s, matrix.shape, edge)
    return Triplets(u[:, :rank], s[:rank], v[:rank])


def factored_triplets(matrix: Factored) -> Triplets:
    """Return the singular triplets of a factored matrix in float64, without those that are zero to working precision.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    wide = matrix.double()
    with lapack_errors():
        # QR of both factors, and an SVD of the small core between them.
        (q_left, r_left), (q_right, r_right) = torch.linalg.qr(wide.left), torch.linalg.qr(wide.right.T)
        u, s, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    k = int((s > NEGLIGIBLE * s[:1]).sum())
    return Triplets(q_left @ u[:, :k], s[:k], v[:k] @ q_right.T)


def numerical_rank(s: Tensor, shape: Sequence[int], edge: float = 0.0) -> int:
    """Return how many singular values, descending, exceed the rounding of float64 and an edge.

    Parameters
    ----------
    s : float64 [k]
    shape : sequence of int
        Of the matrix.
    edge : float
        Singular values up to this one are noise.
    """
    if not len(s):
        return 0
    least = max(edge, float(s[0]) * max(shape) * torch.finfo(torch.float64).eps)
    return int((s > least).sum())


def canonical_signs(u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flip pairs (u, v) so that the largest entry of each u is positive; u s v does not change."""
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * signs, s, v * signs.T


@contextmanager
def lapack_errors() -> Iterator[None]:
    """Raise failures of LAPACK as SvdError."""
    try:
        yield
    except RuntimeError as error:
        raise SvdError(f"expected a singular value decomposition, got '{str(error).splitlines()[0]}'") from error
