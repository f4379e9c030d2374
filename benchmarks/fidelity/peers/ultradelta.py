"""UltraDelta: four-bit values, of which most are dropped at random, inside each value alike, and the rest enlarged.

Source: "UltraDelta", NeurIPS 2025, arXiv 2505.13563, xiaohuiwang000/UltraDelta. Each matrix is rounded to 16 steps
between its least and its largest element. Matrices in order of their standard deviation, in thirds of the parameters,
get a sparsity above, at and below the target, so that it holds on the whole; the authors' step of 0.01 at a target of
0.97 is a third of the density here, so that it has a meaning at any. Inside each of the 16 values that share is
dropped. What is left is multiplied by 1 / (1 - target). The authors' last factor, by trace norms relative to other
tasks' deltas, is left out since one task is known; they code attention and MLP only.

Bytes of an m x n matrix with k elements kept: ceil((4 k + log2 C(m n, k)) / 8) + 12, for values, positions, the two
ends of the range in fp32 and k.
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

STEPS = 2**4 - 1

SPARSITIES = (0.999, 0.997, 0.99, 0.97, 0.94, 0.9)
SPARSITIES_LEFT = (0.998, 0.995, 0.99, 0.97, 0.94, 0.88, 0.8)


def settings() -> list[Setting]:
    """Target sparsity; 0.97 is the authors'."""
    points = {
        rate: Setting("UltraDelta", f"sparsity {rate}", partial(_code, rate), random=True)
        for rate in SPARSITIES + SPARSITIES_LEFT
    }
    return [*(points[rate] for rate in SPARSITIES), *(leaving_embeddings(points[rate]) for rate in SPARSITIES_LEFT)]


def sparsities(deltas: Deltas, target: float) -> dict[str, float]:
    """Sparsity of each matrix that changed: more where the standard deviation is low, the target on the whole."""
    changed = [name for name, delta in deltas.items() if delta.any()]
    order = sorted(changed, key=lambda name: deltas[name].std(correction=0).item())
    total = sum(deltas[name].numel() for name in order)
    high = target + (1 - target) / 3
    rates: dict[str, float] = {}
    reached, spared = 0, 0.0
    for name in order:
        reached += deltas[name].numel()
        if 3 * reached > 2 * total:
            break
        rates[name] = high if 3 * reached <= total else target
        spared += (rates[name] - target) * deltas[name].numel()
    rest = [name for name in order if name not in rates]
    low = target - spared / max(1, sum(deltas[name].numel() for name in rest))
    return rates | dict.fromkeys(rest, max(0.0, low))


def drop_alike(codes: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Mask of what is kept: of each value's elements, the share ``rate`` is dropped, rounded to whole elements."""
    flat, kept = codes.flatten(), torch.zeros(codes.numel(), dtype=torch.bool)
    for value in torch.unique(flat):
        places = (flat == value).nonzero().squeeze(1)
        survivors = len(places) - round(len(places) * rate)
        kept[places[torch.randperm(len(places), generator=generator)[:survivors]]] = True
    return kept.view(codes.shape)


def code_sparse_values(deltas: Deltas, target: float, seed: int) -> Coded:
    """Round, drop and enlarge every matrix."""
    generator = torch.Generator().manual_seed(seed)
    rates = sparsities(deltas, target)

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        least, largest = delta.min(), delta.max()
        # A range of nothing, all elements equal, has one value.
        step = (largest - least) / STEPS if largest > least else torch.tensor(1.0)
        codes = ((delta - least) / step).round().byte()
        kept = drop_alike(codes, rates[name], generator)
        count = int(kept.sum())
        decoded = torch.where(kept, codes * step + least, 0.0) / (1 - target)
        return decoded, whole_bytes(4 * count + choice_bits(delta.numel(), count)) + 8 + COUNT

    return by_matrix(deltas, code)


def _code(target: float, deltas: Deltas, seed: int) -> Coded:
    return code_sparse_values(deltas, target, seed)
