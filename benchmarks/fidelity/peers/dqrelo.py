"""D-QReLO without its last step: the signs with one scale, and what those leave as a low rank in fp16.

Source: D-QReLO, arXiv 2604.16940, of which the abstract was available: one bit first, then a low-rank part of the
residual, training- and data-free. Its "compensation" is not described there and is left out, hence "lite".

Bytes of an m x n matrix at rank r: ceil(m n / 8) + 4 + 2 r (m + n). One bit a parameter is the least it can take.
"""

from functools import partial

from torch import Tensor

from benchmarks.fidelity.peers.bitdelta import code_by_matrix
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings
from benchmarks.fidelity.peers.svd import fp16_product

RANKS = (4,)
RANKS_LEFT = (1, 4, 12)


def settings() -> list[Setting]:
    """Rank of the residual."""
    points = {rank: Setting("D-QReLO-lite", f"rank {rank}", partial(_code, rank)) for rank in RANKS + RANKS_LEFT}
    return [*(points[rank] for rank in RANKS), *(leaving_embeddings(points[rank]) for rank in RANKS_LEFT)]


def sign_residual(delta: Tensor) -> Tensor:
    """Return the residual of a matrix after its signs times one scale."""
    return delta - code_by_matrix("", delta)[0]


def code_signs_and_rank(deltas: Deltas, rank: int) -> Coded:
    """Signs and a low rank for every matrix."""

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        signs, sign_size = code_by_matrix(name, delta)
        low_rank, rank_size = fp16_product(deltas.svd(name, sign_residual), min(rank, *delta.shape))
        return signs + low_rank, sign_size + rank_size

    return by_matrix(deltas, code)


def _code(rank: int, deltas: Deltas, seed: int) -> Coded:
    return code_signs_and_rank(deltas, rank)
