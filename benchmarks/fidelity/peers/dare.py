"""DARE with quantization: drop elements at random, enlarge the rest so that the mean stays, round them to 4 bits.

Source: "Language Models are Super Mario", arXiv 2311.03099, yule-BUAA/MergeLM, for dropping; rounding to steps
between the least and the largest kept element is added, as DARE by itself saves nothing. The mask is drawn anew from
the seed when decoding, so that no positions are stored: the least that DARE can cost.

Bytes: 8 for the seed, and for each m x n matrix with k elements kept ceil(4 k / 8) + 8, for values and the two ends
of the range in fp32.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings, whole_bytes

BITS = 4
SEED = 8

RATES = (0.996, 0.99, 0.98, 0.95, 0.9, 0.8)
RATES_LEFT = (0.993, 0.98, 0.95, 0.9, 0.8, 0.6)


def settings() -> list[Setting]:
    """Rate of dropping."""
    points = {
        rate: Setting("DARE + 4 bits", f"drop {rate}", partial(_code, rate), random=True) for rate in RATES + RATES_LEFT
    }
    return [*(points[rate] for rate in RATES), *(leaving_embeddings(points[rate]) for rate in RATES_LEFT)]


def uniform_steps(values: Tensor, bits: int) -> Tensor:
    """Round to the nearest of 2^bits levels from the least to the largest value, both included."""
    least, largest = values.min(), values.max()
    step = (largest - least) / (2**bits - 1)
    return ((values - least) / step).round() * step + least if step > 0 else values


def code_dropped(deltas: Deltas, rate: float, seed: int, bits: int = BITS) -> Coded:
    """Drop, enlarge and round every matrix."""
    generator = torch.Generator().manual_seed(seed)

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        kept = torch.rand(delta.shape, generator=generator) >= rate
        decoded = torch.zeros_like(delta)
        if kept.any():
            decoded[kept] = uniform_steps(delta[kept] / (1 - rate), bits)
        return decoded, whole_bytes(bits * int(kept.sum())) + 8

    coded = by_matrix(deltas, code)
    return replace(coded, size=coded.size + SEED)


def _code(rate: float, deltas: Deltas, seed: int) -> Coded:
    return code_dropped(deltas, rate, seed)
