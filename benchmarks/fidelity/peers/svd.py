"""Truncated SVD in fp16, which is LoRA extraction: the best approximation of a rank, in two fp16 factors.

Source: arcee-ai/mergekit, `mergekit-extract-lora` (A = sqrt(S) V', B = U sqrt(S), cast to the model's dtype); the
lossy mode of sparse-llm is the same at the same bytes. The rank is the same in all matrices, or the same share of
min(m, n). "Ranks pooled" is no published tool: it spends the same factors where they gain most, to show how much of a
better result is owed to where the rank is spent and how much to the quantizer.

Bytes of an m x n matrix at rank r: 2 r (m + n), and 2 for a rank of its own if ranks are pooled.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.fidelity.peers.matrices import Spectrum
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings

RANKS = (1, 2, 3, 4, 6, 10, 16)
RANKS_LEFT = (1, 2, 3, 5, 8, 14, 24)
# Shares of the matrices' fp32 bytes.
BUDGETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03)


def settings() -> list[Setting]:
    """Uniform ranks and pooled ones. A uniform share is left out: in a BERT, whose matrices all have one width, it
    is a uniform rank.
    """
    uniform = {rank: Setting("SVD fp16", f"rank {rank}", partial(_uniform, rank)) for rank in RANKS + RANKS_LEFT}
    return [
        *(uniform[rank] for rank in RANKS),
        *(leaving_embeddings(uniform[rank]) for rank in RANKS_LEFT),
        *(Setting("SVD fp16 (ranks pooled)", f"{share:.2%}", partial(_pooled, share)) for share in BUDGETS),
    ]


def fp16_product(spectrum: Spectrum, rank: int) -> tuple[Tensor, int]:
    """Product of the two factors as they are stored, and their bytes."""
    root = spectrum.s[:rank].sqrt()
    b, a = (spectrum.u[:, :rank] * root).half(), (root[:, None] * spectrum.v[:rank]).half()
    return b.float() @ a.float(), 2 * (b.numel() + a.numel())


def rank_of_share(share: float, delta: Tensor) -> int:
    """A share of min(m, n), cut off, at least 1."""
    return max(1, int(share * min(delta.shape)))


def code_uniform_rank(deltas: Deltas, rank: int) -> Coded:
    """The same rank everywhere, or as much as there is."""
    return by_matrix(deltas, lambda name, delta: fp16_product(deltas.svd(name), min(rank, *delta.shape)))


def code_uniform_share(deltas: Deltas, share: float) -> Coded:
    """The same share of the rank everywhere."""
    return by_matrix(deltas, lambda name, delta: fp16_product(deltas.svd(name), rank_of_share(share, delta)))


def code_pooled_ranks(deltas: Deltas, budget: int) -> Coded:
    """The components of largest energy per byte over all matrices, as far as a budget in bytes goes."""
    changed = {name: delta for name, delta in deltas.items() if delta.any()}
    owners = [name for name, delta in changed.items() for _ in range(min(delta.shape))]
    energies = torch.cat([deltas.svd(name).s.square() / sum(delta.shape) for name, delta in changed.items()])
    ranks, left = dict.fromkeys(changed, 0), budget - 2 * len(changed)
    for place in energies.argsort(descending=True, stable=True).tolist():
        cost = 2 * sum(deltas[owners[place]].shape)
        if cost <= left:  # a component that is too dear leaves its bytes to cheaper ones
            ranks[owners[place]] += 1
            left -= cost

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        decoded, size = fp16_product(deltas.svd(name), ranks[name])
        return decoded, size + 2

    return by_matrix(deltas, code)


def _uniform(rank: int, deltas: Deltas, seed: int) -> Coded:
    return code_uniform_rank(deltas, rank)


def _pooled(share: float, deltas: Deltas, seed: int) -> Coded:
    return code_pooled_ranks(deltas, int(share * 4 * sum(delta.numel() for delta in deltas.values())))
