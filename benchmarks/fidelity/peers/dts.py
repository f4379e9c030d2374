"""DTS as its authors' code computes it: a truncated SVD with both factors quantized to four levels each.

Source: "Decomposition, Thresholding, Scaling", arXiv 2512.01461, krumpguo/DTS (`our_svd_mask`). The rank is a share
of min(m, n), cut off. Each factor is one set: split by sign, each sign at its median magnitude, each group at its
root mean square. Our own preset `paper` computes the same; this is held against the published rule without our
encoder.

Bytes of an m x n matrix at rank r: ceil(r (m + n) / 4) + 4 r + 32, for codes at a true two bits (the authors count
three), singular values and two times four levels in fp32. Elements of exactly zero, which four groups have no code
for, cost the entropy of their positions.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.fidelity.peers.peer import (
    Coded,
    Deltas,
    Setting,
    by_matrix,
    choice_bits,
    leaving_embeddings,
    whole_bytes,
)
from benchmarks.fidelity.peers.svd import rank_of_share

# 0.1 and 0.3 are the authors', for language and vision.
DENSITIES = (0.006, 0.012, 0.025, 0.05, 0.1, 0.16, 0.22, 0.3, 0.45)
DENSITIES_LEFT = (0.006, 0.012, 0.025, 0.06, 0.15, 0.4)


def settings() -> list[Setting]:
    """Density, which is the share of the rank."""
    points = {share: Setting("DTS", f"density {share}", partial(_code, share)) for share in DENSITIES + DENSITIES_LEFT}
    return [*(points[share] for share in DENSITIES), *(leaving_embeddings(points[share]) for share in DENSITIES_LEFT)]


def four_levels(factor: Tensor) -> Tensor:
    """Replace each element by its group's root mean square; of an odd number of a sign, the smaller group has more."""
    decoded = torch.zeros_like(factor)
    for sign in (1.0, -1.0):
        places = (factor * sign > 0).nonzero(as_tuple=True)
        magnitudes = factor[places].abs()
        order = magnitudes.argsort(descending=True, stable=True)
        half = len(order) // 2
        levels = torch.empty_like(magnitudes)
        for group in (order[:half], order[half:]):
            levels[group] = magnitudes[group].double().square().mean().sqrt().float()
        decoded[places] = sign * levels
    return decoded


def code_density(deltas: Deltas, density: float) -> Coded:
    """Truncate and quantize every matrix."""

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        u, s, v = deltas.svd(name)
        rank = rank_of_share(density, delta)
        factors = u[:, :rank], v[:rank]
        zeros = sum(whole_bytes(choice_bits(one.numel(), int((one == 0).sum()))) for one in factors)
        left, right = map(four_levels, factors)
        return (left * s[:rank]) @ right, whole_bytes(2 * rank * sum(delta.shape)) + 4 * rank + 32 + zeros

    return by_matrix(deltas, code)


def _code(density: float, deltas: Deltas, seed: int) -> Coded:
    return code_density(deltas, density)
