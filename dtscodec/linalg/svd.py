"""Singular value decompositions: truncated, in float64 up to the numerical rank, and of factored matrices."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.errors import SvdError
from dtscodec.linalg.factored_matrix import Factored

NEGLIGIBLE = 1e-6
"""Share of the largest singular value below which those of a factored matrix are rounding errors of half precision."""


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
        Finite.
    edge : float
        Singular values up to this one count as noise.

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

    Parameters
    ----------
    matrix : Factored
        [m, r] and [r, n]; the cost is of order (m + n) r^2.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    wide = matrix.double()
    with lapack_errors():
        # Orthonormalize both factors: L R = (Q1 R1) (Q2 R2)^T.
        (q_left, r_left), (q_right, r_right) = torch.linalg.qr(wide.left), torch.linalg.qr(wide.right.T)
        # Decompose the small core R1 R2^T, [r, r].
        u, s, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    # Truncate to working precision, and rotate the orthonormal factors.
    k = int((s > NEGLIGIBLE * s[:1]).sum())
    return Triplets(q_left @ u[:, :k], s[:k], v[:k] @ q_right.T)


def numerical_rank(s: Tensor, shape: Sequence[int], edge: float = 0.0) -> int:
    """Return the number of singular values above both the rounding error of float64 and a noise edge.

    Parameters
    ----------
    s : float64 [k]
        Singular values, descending.
    shape : sequence of int
        Shape of the matrix.
    edge : float
        Singular values up to this one count as noise.
    """
    if not len(s):
        return 0
    # The common bound on rounding errors: largest singular value, longer side, machine epsilon.
    least = max(edge, float(s[0]) * max(shape) * torch.finfo(torch.float64).eps)
    return int((s > least).sum())


def canonical_signs(u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flip signs of pairs (u, v) so that the entry of largest magnitude of each u is positive.

    The product u s v does not change.

    Parameters
    ----------
    u : float [m, k]
        Left singular vectors, as columns.
    s : float [k]
        Singular values.
    v : float [k, n]
        Right singular vectors, as rows.
    """
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    # Not `sign`, which is 0 for a zero vector.
    signs = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * signs, s, v * signs.T


@contextmanager
def lapack_errors() -> Iterator[None]:
    """Turn failures of LAPACK within this context into SvdError."""
    try:
        yield
    except RuntimeError as error:
        raise SvdError(f"expected a singular value decomposition, got '{str(error).splitlines()[0]}'") from error
