"""Randomized subspace iteration: the leading singular triplets of a matrix, without the others.

A random block of vectors is multiplied by the matrix and by its transpose in turn, and orthonormalized after each
product. It converges to the leading singular vectors, in each round by the squared ratio of singular values (N. Halko,
P.-G. Martinsson and J. Tropp, SIAM Review 53, 2011, algorithm 4.4). Nearly all the work is products of the matrix with
a thin block of k vectors: 2 m n k flops each, whereas a full SVD takes a multiple of m n min(m, n).
"""

import torch
from torch import Tensor

from dtscodec.linalg.devices import product

POWER_ITERATIONS = 2
"""Rounds of products with the matrix and its transpose before the last one. For deltas with flat spectra (a power law
of 0.3), the squared error exceeds that of the truncated SVD by about a thousandth; refits make up for it."""
EXTRA_VECTORS = 16
"""Vectors of the block beyond the number of triplets: the last vectors of a block are the least accurate."""
NEGLIGIBLE_SQUARE = 1e-12
"""Share of the largest squared singular value below which a direction is rounding error of float32 products."""


def leading_triplets(delta: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular triplets of a matrix, with arbitrary signs.

    Parameters
    ----------
    delta : float32 [m, n]
        Finite; on the device that multiplies. All results are on the CPU.
    count : int
        Number of triplets, at most min(m, n).
    seed : int
        Seed of the random block. The result depends on it only in digits that quantization rounds away.

    Returns
    -------
    u : float32 [m, count]
        Orthonormal columns; zero for singular values that are zero to working precision.
    s : float64 [count]
        Descending, and never above the true ones. The sum of their squares is the energy of ``u s v``, so that the
        squared error is exactly the rest of the squared norm.
    v : float32 [count, n]
        Orthonormal rows; zero likewise.
    """
    # A random block, with more vectors than triplets.
    size = min(count + EXTRA_VECTORS, *delta.shape)
    block = torch.randn(delta.shape[1], size, generator=torch.Generator().manual_seed(seed))
    # Power iterations: block <- orth(D^T orth(D block)).
    for _ in range(POWER_ITERATIONS):
        block = orthonormal(product(delta.T, orthonormal(product(delta, block))))
    # Project onto the basis of the range, and decompose the thin matrix D^T Q.
    basis = orthonormal(product(delta, block))
    within = product(delta.T, basis)
    squares, turns = _descending(within)
    s = squares[:count].sqrt()
    # Rotate basis and projection: u = Q W, v = (D^T Q) W / s; zero where s is rounding error.
    inverse = torch.where(squares > NEGLIGIBLE_SQUARE * squares[:1], squares.clamp(min=1e-300).rsqrt(), 0.0)[:count]
    turns = turns[:, :count]
    u, v = basis @ (turns * (inverse > 0)).float(), within @ (turns * inverse).float()
    return _padded(u, count), torch.nn.functional.pad(s, (0, count - len(s))), _padded(v, count).T


def orthonormal(block: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of a block's columns.

    It comes from the block's Gram matrix in float64: products only, with the same bits for any number of threads.

    Parameters
    ----------
    block : float32 [n, k]
        A thin matrix.

    Returns
    -------
    float32 [n, at most k]
        Fewer than k columns if the block is rank-deficient.
    """
    squares, turns = _descending(block)
    # Drop directions of rounding error, which would be scaled up to unit length.
    real = squares > NEGLIGIBLE_SQUARE * squares[:1]
    return block @ (turns[:, real] * squares[real].rsqrt()).float()


def _descending(block: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared singular values of a thin block, descending, and its right singular vectors: float64."""
    wide = block.double()
    # Squaring the condition number is harmless: float64 has more than twice the digits of the input.
    squares, turns = torch.linalg.eigh(wide.T @ wide)
    return squares.flip(0).clamp(min=0), turns.flip(1)


def _padded(vectors: Tensor, count: int) -> Tensor:
    """Return vectors padded with columns of zeros to `count` columns."""
    return torch.nn.functional.pad(vectors, (0, count - vectors.shape[1]))
