"""T-Switch: the largest elements of each sign as a mask and signs, and one scale a matrix that keeps their norm.

Source: "Less is More: Efficient Model Merging with Binary Task Switch", CVPR 2025, arXiv 2412.00054, lfy-123/Binary-
Task-Switch. The authors keep the same share of the positive and of the negative elements of each tensor; their own
format takes a bit for each group of four elements and more for those in use, the entropy here is less.

Bytes of an m x n matrix with k elements kept: ceil((k + log2 C(m n, k)) / 8) + 8, for signs, positions, the scale in
fp32 and k.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.fidelity.peers.peer import (
    COUNT,
    Coded,
    Deltas,
    Setting,
    by_matrix,
    choice_bits,
    leaving_embeddings,
    whole_bytes,
)

SHARES = (0.001, 0.003, 0.008, 0.02, 0.05, 0.1, 0.2)
SHARES_LEFT = (0.002, 0.006, 0.016, 0.05, 0.12, 0.3)


def settings() -> list[Setting]:
    """Share of the elements that is kept."""
    points = {share: Setting("T-Switch", f"top {share:.1%}", partial(_code, share)) for share in SHARES + SHARES_LEFT}
    return [*(points[share] for share in SHARES), *(leaving_embeddings(points[share]) for share in SHARES_LEFT)]


def largest_of_each_sign(delta: Tensor, share: float) -> Tensor:
    """Mask of the elements kept: of each sign this share, cut off, at least one."""
    flat, kept = delta.flatten(), torch.zeros(delta.numel(), dtype=torch.bool)
    for sign in (1, -1):
        of_sign = (flat * sign > 0).nonzero().squeeze(1)
        count = min(len(of_sign), max(1, int(len(of_sign) * share)))
        kept[of_sign[flat[of_sign].abs().topk(count, sorted=False).indices]] = True
    return kept.view(delta.shape)


def code_switch(deltas: Deltas, share: float) -> Coded:
    """Mask, signs and scale of every matrix."""

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        kept = largest_of_each_sign(delta, share)
        count = int(kept.sum())
        scale = delta[kept].norm() / count**0.5
        size = whole_bytes(count + choice_bits(delta.numel(), count)) + 4 + COUNT
        return torch.where(kept, scale * delta.sign(), 0.0), size

    return by_matrix(deltas, code)


def _code(share: float, deltas: Deltas, seed: int) -> Coded:
    return code_switch(deltas, share)
