"""Delta -> the low-rank matrix that is best for its layer's outputs: essential subspace decomposition.

``||X (D - A)^T||`` is least, among matrices A of rank k, at ``E E^T D``, with E the leading left singular vectors of
``D R`` and ``R R^T`` the moment of the inputs (ESM, arXiv 2602.20208; by Eckart and Young). No inverse of R is needed,
and with inputs that are alike in all directions it is the truncated SVD.
"""

from dataclasses import replace

import torch
from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.encoding.fitting.coordinate_descent import Sight
from dtscodec.linalg.svd import Factors, canonical_signs, leading_factors


def essential(delta: Tensor, metric: Metric, rank: int, device: str = "cpu") -> tuple[Factors, Sight]:
    """The best matrix of a rank as a layer's inputs see it: ``E E^T D``.

    Parameters
    ----------
    delta : float32 [m, n]
    metric : Metric
    rank : int
    device : str
        What multiplies.

    Returns
    -------
    factors : Factors
        Of that matrix.
    sight : Sight
        The delta as the inputs see it.
    """
    delta, metric = delta.to(device), replace(metric, root=metric.root.to(device))
    seen = metric.matrix(delta)
    leading = leading_factors(seen, rank, device)
    if metric.on_rows:
        u, s, v = torch.linalg.svd(delta @ leading.v.T, full_matrices=False)
        v = v @ leading.v
    else:
        u, s, v = torch.linalg.svd(leading.u.T @ delta, full_matrices=False)
        u = leading.u @ u
    factors = Factors(*canonical_signs(u[:, :rank], s[:rank], v[:rank]), leading.spectrum)
    by_left, by_right = (seen, delta) if metric.on_rows else (delta, seen)
    return factors, Sight(seen, by_left, by_right, leading, metric.left, metric.right)
