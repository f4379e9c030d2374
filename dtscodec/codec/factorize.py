"""Delta -> singular vectors: the thin SVD with signs made canonical."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dtscodec.errors import EncodeError


def truncated_svd(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triplets of a matrix (DTS equation 2).

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
    EncodeError
        LAPACK did not converge.
    """
    try:
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
    except RuntimeError as error:
        raise EncodeError(f"expected a singular value decomposition, got '{str(error).splitlines()[0]}'") from error
    return canonical_signs(u[:, :rank], s[:rank], v[:rank])


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: its SVD and sums give other last bits on each number of threads.

    A pack must not depend on how many cores made it. The setting is the process's, so it is put back.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def canonical_signs(u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flip pairs (u, v) so that the largest entry of each u is positive; u s v does not change."""
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * signs, s, v * signs.T
