"""Essential subspace decomposition (arXiv 2602.20208): the directions of a layer's outputs that a move shifts most."""

from torch import Tensor

from dtscodec.activations.gram_file import Gram
from dtscodec.linalg.essential_subspace import essential_triplets, symmetric_root
from dtscodec.linalg.svd import Triplets, triplets


def essential(delta: Tensor, gram: Gram | None, damping: float = 0.0, edge: float = 0.0) -> Triplets:
    """The orthonormal basis E of a move by the outputs that it shifts, and the coordinates E^T delta in it.

    ``E[:, :k] @ E[:, :k].T @ delta`` is, among all matrices of rank k, the nearest to the move in what it does to
    the inputs. With inputs of no direction (X = I), and for strong damping, it is the SVD.

    Parameters
    ----------
    delta : float [m, n]
        The move of a linear layer's weight.
    gram : Gram or None
        Of the layer's inputs, [n, n]; without it the SVD.
    damping : float
        See `Gram.damped`.
    edge : float
        Singular values of the move up to this one are noise, where there is no `gram`.

    Returns
    -------
    Triplets
        u : the basis E; s : root mean square of the outputs' shift along each direction, descending; v : E^T delta,
        whose rows are neither unit nor orthogonal.
    """
    if gram is None:
        found = triplets(delta, edge)
        return Triplets(found.u, found.s, found.s[:, None] * found.v)
    wide = delta.double()
    root = symmetric_root(gram.damped(damping).to(wide.device))
    return essential_triplets(wide, root, gram.rows if gram.rows and not damping else None)
