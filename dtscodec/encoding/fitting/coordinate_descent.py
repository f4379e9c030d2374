"""Factors -> codes that fit the delta: refits of one quantized factor against the other.

A truncated SVD is the best low-rank matrix, but rounding its vectors one by one to a few levels is not the best that
those levels can do. Here each vector is fitted in turn to what all others leave of the true delta, and quantized: block
coordinate descent, as in the alternating refits of matrix factorization, with rounding inside. Components stop being
orthogonal; strong directions are met more than once where that pays.

The widths of vectors and what their codes stand for are the format's (spec section 5.3). The inverse is
`dtscodec.format.blocks.LowRankContent.delta`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dtscodec.encoding.fitting.quantized_factor import QuantizedFactor
from dtscodec.encoding.fitting.weighted_delta import WeightedDelta
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.format.blocks import BandFactors
from dtscodec.format.streams import NO_NUMBERS
from dtscodec.linalg.devices import product
from dtscodec.quantize.scalar import TINY
from dtscodec.quantize.widths import Bits, width_of

RIDGE = 1e-6
"""Share of the diagonal that is added where scales are solved for: components that repeat a direction are alike."""


class Refined:
    """A delta as quantized components.

    Parameters
    ----------
    weighted : WeightedDelta
        The delta in the norm to minimize, on the device that multiplies it, with the r triplets to start from.
    widths : sequence of int
        Bits per code of each component; descending.
    recipe : Recipe
        Number of rounds, kind of levels, and gain.
    """

    def __init__(self, weighted: WeightedDelta, widths: Sequence[Bits], recipe: Recipe) -> None:
        factors = weighted.start
        self._weighted = weighted
        self._widths, self._recipe = list(widths), recipe
        self.u = QuantizedFactor((factors.u * factors.s).T.contiguous(), widths, recipe)
        self.v = QuantizedFactor(factors.v.contiguous(), widths, recipe)
        for _ in range(recipe.rounds):
            # Refit u against v as it decodes, then v against u.
            right = self._weighted.right(self.v.vectors)
            self.u.refit(right, product(right, self._weighted.by_right.T))
            left = self._weighted.left(self.u.vectors)
            self.v.refit(left, product(left, self._weighted.by_left))

    def solve_scales(self, rounded: Callable[[Tensor], Tensor]) -> Tensor:
        """The scales of least squared error for the codes as they are: `[(U^T U) o (V^T V)] s = diag(U^T D V)`.

        Parameters
        ----------
        rounded : callable
            Rounds numbers to what the pack can hold. Levels are rounded before scales are solved for.
        """
        self.u.round_levels(rounded)
        self.v.round_levels(rounded)
        system = self._system()
        u, v = self._weighted_factors()
        targets = (product(u, self._weighted.delta) * v).sum(1).double()
        damped = system + RIDGE * torch.diag(system.diagonal()) + TINY * torch.eye(len(system), dtype=torch.float64)
        scales: Tensor = torch.linalg.solve(damped, targets)
        return scales.float()

    def gain(self, scales: Tensor, floor: float) -> float:
        """What the decoded delta is multiplied by to have the true one's effect.

        Least squares shrinks: what it leaves out is missing everywhere in the same sense, and a model's outputs come
        out too faint. The effect of a delta D on the outputs is its inner product with a gradient, and a gradient looks
        like the delta that training made of it, strong directions even more so: G = sum_i s_i^a u_i v_i^T, with the
        recipe's power a. The gain makes <G, decoded> equal to <G, D>, within the recipe's limit, and the decoded delta
        no larger in norm than D. 1 if the recipe wants none.

        Parameters
        ----------
        scales : float32 [r]
        floor : float
            Singular values up to this are noise, and no part of what is to be kept.
        """
        factors, power = self._weighted.factors, self._recipe.gain
        if power is None:
            return 1.0
        spectrum = factors.spectrum.double()[factors.spectrum > floor]
        u, v = self._weighted_factors()
        overlaps = ((u @ factors.u).T @ (scales[:, None] * (v @ factors.v.T))).diagonal().double()
        weights = (factors.s.double() / factors.s[0]).pow(power)
        true_effect = float(((spectrum / factors.s[0]).pow(power) * spectrum).sum())
        decoded_effect = float((weights * overlaps).sum())
        true = float(spectrum.square().sum())
        decoded = float(scales.double() @ self._system() @ scales.double())
        if decoded_effect <= 0 or decoded <= 0:
            return 1.0
        return max(1.0, min(true_effect / decoded_effect, math.sqrt(true / decoded), self._recipe.largest_gain))

    def _system(self) -> Tensor:
        """Inner products of the components without their scales: float64 [r, r]."""
        u, v = self._weighted_factors()
        return ((u @ u.T) * (v @ v.T)).double()

    def _weighted_factors(self) -> tuple[Tensor, Tensor]:
        """The values of both factors' codes, weighted by the metric."""
        return self._weighted.left(self.u.plain()), self._weighted.right(self.v.plain())

    def bands(self, scales: Tensor) -> list[BandFactors]:
        """Return the components by width, the strongest of each width first.

        Parameters
        ----------
        scales : float32 [r]
        """
        u, v = self.u.plain(), self.v.plain()
        strengths = scales.abs() * u.norm(dim=1) * v.norm(dim=1)
        bands = []
        for bits in sorted(set(self._widths), reverse=True):
            members = [k for k, other in enumerate(self._widths) if other == bits]
            members.sort(key=lambda k: -float(strengths[k]))
            if width_of(bits).has_scales:
                left, right = self.u.quantized(members), self.v.quantized(members)
                bands.append(BandFactors(left, right, scales[members].numpy()))
            else:
                of_u, of_v = balanced(u, v, scales)
                left, right = self.u.quantized(members, of_u), self.v.quantized(members, of_v)
                bands.append(BandFactors(left, right, NO_NUMBERS))
        return bands


def balanced(u: Tensor, v: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of u and of v that multiply to the scales and give both vectors elements of one size.

    So that neither leaves the range of float16, which has no scales beside it.
    """
    ratio = (v.square().mean(1) / u.square().mean(1).clamp(min=TINY)).clamp(min=TINY).sqrt()
    of_u = (scales.abs() * ratio).sqrt()
    return of_u * scales.sign(), scales.abs() / of_u.clamp(min=TINY)
