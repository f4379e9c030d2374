"""Delta -> its leading singular triplets, without the rest: randomized subspace iteration.

A random block of vectors is multiplied by the matrix and its transpose in turn and made orthonormal after each product;
it turns towards the leading singular vectors, each time by the square of the ratio of singular values (N. Halko, P.-G.
Martinsson and J. Tropp, SIAM Review 53, 2011, algorithm 4.4). Nearly all the work is matrix products of the matrix with
a thin block: 2 m n k flops for each, where a full SVD takes a multiple of m n min(m, n).
"""

import torch
from torch import Tensor

from dtscodec.linalg.devices import product

POWER_ITERATIONS = 2
"""Products with the matrix and its transpose before the last pair. What is left of deltas with flat spectra (a power
law of 0.3) exceeds the least possible by about a thousandth; refits make up for it."""
OVERSAMPLING = 16
"""Vectors beyond the triplets that are wanted: the last ones in a block are the least exact."""
NEGLIGIBLE_SQUARE = 1e-12
"""Share of the largest square below which a direction is rounding: float32 products know no more."""


def leading_triplets(delta: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triplets, signs as they come.

    Parameters
    ----------
    delta : float32 [m, n]
        Finite; on the device that is to multiply it. All results are here.
    count : int
        At most min(m, n).
    seed : int
        Of the random block. The result depends on it in digits that coding rounds away.

    Returns
    -------
    u : float32 [m, count]
        Orthonormal columns; zero for singular values that are zero to working precision.
    s : float64 [count]
        Descending. Never above the true ones, and the sum of their squares is what `u` and `v` hold of the matrix, so
        that the rest of its squared norm is exactly what is missing.
    v : float32 [count, n]
        Orthonormal rows; zero likewise.
    """
    size = min(count + OVERSAMPLING, *delta.shape)
    block = torch.randn(delta.shape[1], size, generator=torch.Generator().manual_seed(seed))
    for _ in range(POWER_ITERATIONS):
        block = orthonormal(product(delta.T, orthonormal(product(delta, block))))
    basis = orthonormal(product(delta, block))
    within = product(delta.T, basis)
    squares, turns = _descending(within)
    s = squares[:count].sqrt()
    inverse = torch.where(squares > NEGLIGIBLE_SQUARE * squares[:1], squares.clamp(min=1e-300).rsqrt(), 0.0)[:count]
    turns = turns[:, :count]
    u, v = basis @ (turns * (inverse > 0)).float(), within @ (turns * inverse).float()
    return _padded(u, count), torch.nn.functional.pad(s, (0, count - len(s))), _padded(v, count).T


def orthonormal(block: Tensor) -> Tensor:
    """Orthonormal columns that span the columns of a block, float32 [n, k]: float32 [n, at most k].

    By the block's Gram matrix in float64: products only, which give the same bits on each number of threads.
    """
    squares, turns = _descending(block)
    real = squares > NEGLIGIBLE_SQUARE * squares[:1]
    return block @ (turns[:, real] * squares[real].rsqrt()).float()


def _descending(block: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values of a block of few columns, descending, and its right singular vectors: float64."""
    wide = block.double()
    squares, turns = torch.linalg.eigh(wide.T @ wide)
    return squares.flip(0).clamp(min=0), turns.flip(1)


def _padded(vectors: Tensor, count: int) -> Tensor:
    """With columns of zeros to make up the number."""
    return torch.nn.functional.pad(vectors, (0, count - vectors.shape[1]))
