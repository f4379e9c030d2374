"""The polar factor: the orthonormal matrix that is nearest to a given one."""

from dataclasses import dataclass

from torch import Tensor

from dtscodec.linalg.svd import triplets


@dataclass(frozen=True, slots=True)
class Polar:
    """The polar factor of a matrix, and the mean of its singular values.

    Parameters
    ----------
    factor : float64 [m, n]
        U V^T: orthonormal columns if the matrix has full column rank, orthonormal rows if full row rank.
    mean : float
        Of the matrix's singular values; 0 if there are none.
    """

    factor: Tensor
    mean: float


def polar(matrix: Tensor) -> Polar:
    """Return the polar factor X (X^T X)^(-1/2): the nearest matrix whose singular values are all one.

    Directions that are zero to working precision stay zero, since the factor is not unique in them.

    Parameters
    ----------
    matrix : float [m, n]

    >>> import torch
    >>> polar(torch.tensor([[0.0, 3.0], [2.0, 0.0]])).factor.round().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    found = triplets(matrix)
    return Polar(found.u @ found.v, float(found.s.mean()) if len(found) else 0.0)
