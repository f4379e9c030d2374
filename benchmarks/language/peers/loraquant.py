"""LoRAQuant on the delta as a LoRA: its leading components at two or three bits, the rest as signs.

Source: "LoRAQuant: Mixed-Precision Quantization of LoRA to Ultra-Low Bits", arXiv 2510.26690,
Anonymous890920/LoRAQuant (`main.py`, method `loraquant_ratio` with `opt`). The product of a LoRA's factors is
decomposed into singular vectors, and each side takes the roots of the singular values. Here that product is a
truncated SVD of a fine-tune's delta, of the same rank in all matrices. Leading components, by a share of the energy
that they hold (the "ratio"), are rounded to nearest between the least and the largest of each 128 elements; the others
become signs times the mean magnitude of each 128. Before rounding, the factors of each leading component are moved by
gradient descent so that the product of the rounded ones is nearest to theirs; gradients pass through rounding
unchanged, and through the range of each group. Steps are taken at a unit scale, where their length suits any weights.
No data.

Embeddings are no modules that LoRAs cover: they are left at the base's, or coded alike.

Bytes of an m x n matrix at rank r with h leading components of b bits: ((b h + r - h) (m + n)) / 8, 2 + b / 8 for each
leading group's scale and zero, 2 for the scale of any other group, and 2 for h.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.fidelity.peers.grid import GROUP, round_to_nearest
from benchmarks.fidelity.peers.peer import Coded, Deltas, by_matrix, whole_bytes

STEPS = 60
RATE = 3.0
COUNT_BITS = 16
"""For the number of leading components."""


def leading_count(singular_values: Tensor, ratio: float) -> int:
    """Number of leading components by the authors' rule: those before the one that reaches the ratio, at least one.

    >>> leading_count(torch.tensor([2.0, 1.0, 1.0]), 0.8), leading_count(torch.tensor([2.0, 1.0, 1.0]), 0.5)
    (1, 1)
    >>> leading_count(torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.9)
    3
    """
    energy = singular_values.double().square().cumsum(0)
    return max(1, int((energy < ratio * energy[-1]).sum()))


def signs_and_means(vectors: Tensor) -> tuple[Tensor, int]:
    """Signs of vectors [k, length] times the mean magnitude of each group, and the bits they take with the means."""
    count, length = vectors.shape
    groups = pad(vectors.abs(), (0, -length % GROUP)).reshape(count, -1, GROUP).sum(2)
    sizes = torch.full((groups.shape[1],), float(GROUP))
    sizes[-1] = length - GROUP * (len(sizes) - 1)
    means = (groups / sizes).half().float()
    decoded = means.repeat_interleave(GROUP, 1)[:, :length] * vectors.sign()
    return decoded, vectors.numel() + 16 * means.numel()


def round_products(left: Tensor, right: Tensor, bits: int) -> tuple[Tensor, Tensor, int]:
    """Round the factors of components so that each product of two vectors changes little.

    Parameters
    ----------
    left, right : Tensor
        Vectors of the components, [k, m] and [k, n].
    bits : int
        For each element.

    Returns
    -------
    left, right : Tensor
        The rounded vectors.
    nbits : int
        The bits that they take with scales and zeros.
    """
    lengths = [(side.norm(dim=1, keepdim=True) / side.shape[1] ** 0.5).clamp(min=1e-20) for side in (left, right)]
    true = [side / length for side, length in zip((left, right), lengths, strict=True)]
    free = [side.clone().requires_grad_() for side in true]
    best = [side.clone() for side in true]
    least = torch.full((len(left),), torch.inf)
    optimizer = torch.optim.SGD(free, lr=RATE)
    for _ in range(STEPS):
        errors = _product_errors(true, [_round_straight_through(side, bits) for side in free])
        better = errors.detach() < least
        least = torch.where(better, errors.detach(), least)
        best = [torch.where(better[:, None], new.detach(), old) for new, old in zip(free, best, strict=True)]
        optimizer.zero_grad()
        torch.autograd.backward(errors.sum())
        optimizer.step()
    # Lengths are folded into the scales of the groups.
    (left, left_bits), (right, right_bits) = (
        round_to_nearest(side * length, bits) for side, length in zip(best, lengths, strict=True)
    )
    return left, right, left_bits + right_bits


def _round_straight_through(vectors: Tensor, bits: int) -> Tensor:
    """As `round_to_nearest`, with the gradient of rounding taken for 1."""
    count, length = vectors.shape
    groups = pad(vectors, (0, -length % GROUP)).reshape(count, -1, GROUP)
    least, largest = groups.amin(2, keepdim=True).clamp(max=0), groups.amax(2, keepdim=True).clamp(min=0)
    scale = ((largest - least) / (2**bits - 1)).clamp(min=1e-8)
    exact = groups / scale
    codes = exact + (exact.round() - exact).detach()
    zero = (-least / scale).round().detach()
    rounded: Tensor = ((codes + zero).clamp(0, 2**bits - 1) - zero) * scale
    return rounded.flatten(1)[:, :length]


def _product_errors(true: Sequence[Tensor], rounded: Sequence[Tensor]) -> Tensor:
    """Squared Frobenius norms of the differences of products of two vectors, [k]."""
    (a, b), (c, d) = true, rounded
    inner = (a * c).sum(1) * (b * d).sum(1)
    sizes = [x.square().sum(1) * y.square().sum(1) for x, y in ((a, b), (c, d))]
    return (sizes[0] + sizes[1] - 2 * inner) / (a.shape[1] * b.shape[1])


def code_as_lora(deltas: Deltas, rank: int, ratio: float, bits: int) -> Coded:
    """Code the leading components of every matrix as a LoRA.

    Parameters
    ----------
    deltas : Matrices
        The deltas.
    rank : int
        Number of components, or as many as there are.
    ratio : float
        Share of their energy that decides how many are leading ones.
    bits : int
        For each element of the leading ones.
    """

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        spectrum = deltas.svd(name)
        s = spectrum.s[:rank]
        count = leading_count(s, ratio)
        left, right = s.sqrt()[:, None] * spectrum.u[:, :rank].T, s.sqrt()[:, None] * spectrum.v[:rank]
        high_left, high_right, nbits = round_products(left[:count], right[:count], bits)
        decoded = high_left.T @ high_right
        if count < len(s):
            (low_left, left_bits), (low_right, right_bits) = (signs_and_means(side[count:]) for side in (left, right))
            decoded += low_left.T @ low_right
            nbits += left_bits + right_bits
        return decoded, whole_bytes(nbits + COUNT_BITS)

    return by_matrix(deltas, code)
