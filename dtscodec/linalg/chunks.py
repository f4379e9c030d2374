"""Large tensors in chunks that caches hold: iteration, and norms summed in float64."""

from collections.abc import Iterator

from torch import Tensor

ELEMENTS_AT_ONCE = 2**17
"""As many as caches hold."""


def cache_sized(count: int, width: int = 1) -> Iterator[slice]:
    """Cut so many rows of a width into pieces that caches hold, in order.

    >>> list(cache_sized(5, 2**16))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    step = max(1, ELEMENTS_AT_ONCE // max(1, width))
    return (slice(begin, begin + step) for begin in range(0, count, step))


def squared_norm(tensor: Tensor) -> float:
    """Squared Frobenius norm, summed in float64."""
    flat, total = tensor.reshape(-1), 0.0
    for part in cache_sized(len(flat)):
        wide = flat[part].double()
        total += float(wide @ wide)
    return total
