"""Norms of large tensors, summed in float64."""

from torch import Tensor

from dtscodec.linalg.chunks import cache_sized


def squared_norm(tensor: Tensor) -> float:
    """Squared Frobenius norm, summed in float64."""
    flat, total = tensor.reshape(-1), 0.0
    for part in cache_sized(len(flat)):
        wide = flat[part].double()
        total += float(wide @ wide)
    return total
