"""Essential subspaces: the low-rank approximation of a delta that changes a layer's outputs most like the delta does.

The squared change of a layer's outputs over inputs X is ``||X D^T||^2 = ||D R||^2``, where ``R R^T`` is the second
moment of the inputs. Among matrices A of rank k, ``||(D - A) R||`` is least at ``A = E E^T D``, with E the k leading
left singular vectors of ``D R`` (ESM, arXiv 2602.20208; by Eckart and Young). This needs no inverse of R. If inputs
have no preferred direction, it is the truncated SVD.
"""

import torch
from torch import Tensor

from dtscodec.linalg.svd import Triplets, lapack_errors, numerical_rank


def symmetric_root(moment: Tensor) -> Tensor:
    """Return a square root R of a positive semi-definite matrix: R R^T = moment.

    Parameters
    ----------
    moment : float64 [n, n]
        Second moment of a layer's inputs; symmetric.

    Returns
    -------
    float64 [n, n]

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    with lapack_errors():
        squares, vectors = torch.linalg.eigh(moment)
    # R = V diag(sqrt(w)); rounding may leave eigenvalues w a little below 0.
    root: Tensor = vectors * squares.clamp(min=0).sqrt()
    return root


def essential_triplets(delta: Tensor, root: Tensor, most: int | None = None) -> Triplets:
    """Return the essential subspace of a delta, up to its numerical rank.

    Parameters
    ----------
    delta : float64 [m, n]
        The delta D.
    root : float64 [n, any]
        R, a square root of the inputs' second moment.
    most : int, optional
        Largest rank of the result.

    Returns
    -------
    Triplets
        u : the orthonormal basis E. s : root mean square of the outputs' change along each of its directions,
        descending. v : the coordinates E^T D, with rows that are neither unit nor orthogonal.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    # E: leading left singular vectors of D R.
    with lapack_errors():
        u, s, _ = torch.linalg.svd(delta @ root, full_matrices=False)
    rank = numerical_rank(s, delta.shape)
    u = u[:, : rank if most is None else min(rank, most)]
    return Triplets(u, s[: u.shape[1]], u.T @ delta)
