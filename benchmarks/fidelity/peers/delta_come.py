"""Delta-CoMe, rounded to nearest: singular vectors in bands of 8, 3 and 2 bits, the leading ones with the most.

Source: "Delta-CoMe: Training-Free Delta-Compression with Mixed-Precision", NeurIPS 2024, arXiv 2406.08903,
thunlp/Delta-CoMe. The authors round by GPTQ on 128 texts, which is left out here as no peer gets data (and as their
repository lacks the file); what stands for it is rounding to the nearest of the same grid: asymmetric between the
least and the largest of each 128 elements along a vector, zero among them. They code attention and MLP only. Their
bands for a width of 4096 are taken in proportion to min(m, n) and times a share, which sweeps the size; at least one
vector pair has 8 bits. A square matrix gets the bands of attention, any other those of the MLP.

Bytes of an m x n matrix: sum over bands of b bits and k pairs of b k (m + n) / 8, and for each group 2 for its scale
in fp16 and b / 8 for its zero, and 4 for each singular value.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.fidelity.peers.grid import round_to_nearest
from benchmarks.fidelity.peers.matrices import Spectrum
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings, whole_bytes

WIDTH = 4096
# Vector pairs by bits, for a width of 4096: the defaults of the authors' run.sh, one bit a parameter.
ATTENTION = {8: 2, 3: 32, 2: 968}
MLP = {8: 2, 3: 32, 2: 1428}


class Plan(NamedTuple):
    """Vector pairs by bits, for a width of 4096, of square matrices and of others."""

    attention: Mapping[int, int]
    mlp: Mapping[int, int]

    def pairs(self, shape: torch.Size) -> Mapping[int, int]:
        """Return those of a matrix."""
        return self.attention if shape[0] == shape[1] else self.mlp


PUBLISHED = Plan(ATTENTION, MLP)

SHARES = (0.0, 0.03, 0.07, 0.15, 0.3, 0.6, 1.0)
SHARES_LEFT = (0.0, 0.05, 0.12, 0.25, 0.5, 1.0, 1.6)


def settings() -> list[Setting]:
    """Share of the published bands; 1 is the published rate."""
    name = "Delta-CoMe (round to nearest, data-free)"
    points = {share: Setting(name, f"bands x {share}", partial(_code, share)) for share in SHARES + SHARES_LEFT}
    return [*(points[share] for share in SHARES), *(leaving_embeddings(points[share]) for share in SHARES_LEFT)]


def bands(shape: torch.Size, share: float, plan: Plan = PUBLISHED) -> list[tuple[int, int]]:
    """Bits and number of vector pairs of each band, from the leading one on, which has at least one pair.

    >>> bands(torch.Size([4096, 4096]), 1.0), bands(torch.Size([384, 1536]), 0.5)
    ([(8, 2), (3, 32), (2, 968)], [(8, 1), (3, 2), (2, 67)])
    """
    left = min(shape)
    result: list[tuple[int, int]] = []
    for bits, pairs in plan.pairs(shape).items():
        wanted = round(pairs * share * min(shape) / WIDTH)
        count = min(left, wanted if result else max(1, wanted))
        left -= count
        if count:
            result.append((bits, count))
    return result


def round_bands(spectrum: Spectrum, plan: Sequence[tuple[int, int]]) -> tuple[Tensor, int]:
    """A matrix by its rounded singular vectors, and its bytes; the plan has bits and vector pairs of each band."""
    u, s, v = spectrum
    decoded, size, start = torch.zeros(len(u), v.shape[1]), 0, 0
    for bits, count in plan:
        band = slice(start, start + count)
        left, left_bits = round_to_nearest(u[:, band].T, bits)
        right, right_bits = round_to_nearest(v[band], bits)
        decoded += (left.T * s[band]) @ right
        size += left_bits + right_bits + 32 * count
        start += count
    return decoded, whole_bytes(size)


def code_bands(deltas: Deltas, share: float, plan: Plan = PUBLISHED) -> Coded:
    """Quantize the singular vectors of every matrix, band by band."""
    return by_matrix(deltas, lambda name, delta: round_bands(deltas.svd(name), bands(delta.shape, share, plan)))


def _code(share: float, deltas: Deltas, seed: int) -> Coded:
    return code_bands(deltas, share)
