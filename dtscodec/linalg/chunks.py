"""Large tensors in chunks that fit into a CPU cache: iteration over rows, and norms."""

from collections.abc import Iterator

from torch import Tensor

ELEMENTS_AT_ONCE = 2**17
"""Elements of a chunk: 512 KiB of float32."""


def cache_sized(count: int, width: int = 1) -> Iterator[slice]:
    """Divide rows into chunks of at most `ELEMENTS_AT_ONCE` elements, in order.

    Element-wise work on a whole tensor would allocate intermediate results of its size, which takes most of the time.

    Parameters
    ----------
    count : int
        Number of rows.
    width : int
        Elements of a row.

    Returns
    -------
    iterator of slice
        Rows of each chunk; the last slice may end beyond `count`.

    Examples
    --------
    >>> list(cache_sized(5, 2**16))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    # At least one row, however wide it is.
    step = max(1, ELEMENTS_AT_ONCE // max(1, width))
    return (slice(begin, begin + step) for begin in range(0, count, step))


def squared_norm(tensor: Tensor) -> float:
    """Return the squared Frobenius norm of a tensor of any shape, summed in float64."""
    flat, total = tensor.reshape(-1), 0.0
    for part in cache_sized(len(flat)):
        # A wide copy of one chunk only.
        wide = flat[part].double()
        total += float(wide @ wide)
    return total
