"""Essential subspace decomposition of task vectors (arXiv 2602.20208)."""

from torch import Tensor

from dtscodec.activations.gram_file import Gram
from dtscodec.linalg.essential_subspace import essential_triplets, symmetric_root
from dtscodec.linalg.svd import Triplets, triplets


def essential(delta: Tensor, gram: Gram | None, damping: float = 0.0, edge: float = 0.0) -> Triplets:
    """Return the essential subspace of a task vector: an orthonormal basis E, and the coordinates E^T delta in it.

    Among all matrices of rank k, ``E[:, :k] @ E[:, :k].T @ delta`` changes the layer's outputs most like delta does.
    For isotropic inputs (X = I), and for strong damping, it is the truncated SVD.

    Parameters
    ----------
    delta : float [m, n]
        Task vector of a linear layer's weight.
    gram : Gram or None
        Of the layer's inputs, [n, n]; without it the SVD is used.
    damping : float
        See `Gram.damped`.
    edge : float
        Noise edge, used without a `gram`: smaller singular values are noise.

    Returns
    -------
    Triplets
        u : the basis E; s : root mean square of the outputs' change along each direction, descending; v : E^T delta,
        whose rows are neither unit nor orthogonal.
    """
    if gram is None:
        found = triplets(delta, edge)
        return Triplets(found.u, found.s, found.s[:, None] * found.v)
    wide = delta.double()
    root = symmetric_root(gram.damped(damping).to(wide.device))
    return essential_triplets(wide, root, gram.rows if gram.rows and not damping else None)
