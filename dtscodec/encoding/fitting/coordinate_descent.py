"""Coordinate descent: singular vectors -> quantized vectors whose product fits the delta.

A truncated SVD is the best matrix of its rank, but rounding its vectors to a few levels does not give the best product
of such vectors. Here each vector is fitted in turn to the residual of all others and quantized at once: block
coordinate descent, as in alternating least squares for matrix factorization, with rounding inside. The components do
not stay orthogonal: several of them may cover one strong direction.

The values of codes are the format's (spec section 5.3). The inverse is
`dtscodec.format.blocks.LowRankContent.delta`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dtscodec.encoding.fitting.direction_gains import direction_gains
from dtscodec.encoding.fitting.quantized_factor import QuantizedFactor
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.format.blocks import BandFactors
from dtscodec.format.streams import NO_NUMBERS
from dtscodec.linalg.devices import product
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors
from dtscodec.quantize.scalar import TINY
from dtscodec.quantize.widths import Bits, width_of

RIDGE = 1e-6
"""Share of the diagonal that is added to the system of scales: components that repeat a direction make it singular."""


class FittedComponents:
    """Quantized components that are fitted to a delta on construction.

    Parameters
    ----------
    delta : float32 [m, n] or Factored
        The delta, on the device that multiplies it.
    factors : Factors
        Its r leading singular triplets, from which the descent starts, and its spectrum.
    widths : sequence of int
        Bits per code of each component; descending.
    recipe : Recipe
        Number of rounds, kind of levels, and gain.
    """

    def __init__(self, delta: Tensor | Factored, factors: Factors, widths: Sequence[Bits], recipe: Recipe) -> None:
        self._delta, self._factors, self._widths, self._recipe = delta, factors, list(widths), recipe
        # Start: quantize the singular vectors; singular values go into the left ones.
        self.u = QuantizedFactor((factors.u * factors.s).T.contiguous(), widths, recipe)
        self.v = QuantizedFactor(factors.v.contiguous(), widths, recipe)
        for _ in range(recipe.rounds):
            # Refit the left vectors against the decoded right ones.
            self.u.refit(self.v.vectors, product(self.v.vectors, delta.T))
            # Refit the right vectors against the decoded left ones.
            self.v.refit(self.u.vectors, product(self.u.vectors, delta))

    def solve_scales(self, rounded: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the scales of least squared error for the codes found: float32 [r].

        They solve ``[(U^T U) o (V^T V)] s = diag(U^T D V)``, with o the product by elements.

        Parameters
        ----------
        rounded : callable
            Rounds numbers as the pack stores them.
        """
        # Levels are rounded first, so that scales make up for it.
        self.u.round_levels(rounded)
        self.v.round_levels(rounded)
        system = self._system()
        targets = (product(self.u.plain(), self._delta) * self.v.plain()).sum(1).double()
        # A small ridge: nearly equal components leave the system singular.
        damped = system + RIDGE * torch.diag(system.diagonal()) + TINY * torch.eye(len(system), dtype=torch.float64)
        scales: Tensor = torch.linalg.solve(damped, targets)
        return scales.float()

    def gain(self, scales: Tensor, floor: float) -> float:
        """Return the factor on the decoded delta that gives it the true one's effect; 1 if the recipe has no gain.

        Least squares shrinks: a model's outputs change in the right direction, but too little. To first order, a delta
        D changes an output by its inner product with that output's gradient. A gradient resembles the delta that
        training made of it, in strong directions even more: G = sum_i s_i^a u_i v_i^T, with the recipe's power a. The
        gain makes <G, decoded> equal to <G, D>, within the recipe's limit, and leaves the decoded delta no larger in
        norm than D.

        Parameters
        ----------
        scales : float32 [r]
            Scales of the components.
        floor : float
            Singular values up to this one are rounding noise and not part of D.
        """
        factors, power = self._factors, self._recipe.gain_power
        if power is None:
            return 1.0
        # <G, D> over the whole spectrum above the noise, and <G, decoded> over the components.
        spectrum = factors.spectrum.double()[factors.spectrum > floor]
        overlaps = self._along_directions(scales)
        weights = (factors.s.double() / factors.s[0]).pow(power)
        true_effect = float(((spectrum / factors.s[0]).pow(power) * spectrum).sum())
        decoded_effect = float((weights * overlaps).sum())
        # Squared norms of both.
        true = float(spectrum.square().sum())
        decoded = float(scales.double() @ self._system() @ scales.double())
        if decoded_effect <= 0 or decoded <= 0:
            return 1.0
        # Never below 1; above it, bounded by the norm of the delta and by the recipe.
        return max(1.0, min(true_effect / decoded_effect, math.sqrt(true / decoded), self._recipe.largest_gain))

    def gains(self, scales: Tensor, floor: float) -> Tensor:
        """Return the factor of each component that restores the effect of the direction that it stands for.

        Parameters
        ----------
        scales : float32 [r]
            Scales of the components.
        floor : float
            As for `gain`.

        Returns
        -------
        float32 [r]
            All the same, `gain`, unless the recipe has a gain for each direction.
        """
        uniform = self.gain(scales, floor)
        factors = self._factors
        if not self._recipe.direction_gains or self._recipe.gain_power is None or not factors.s[0]:
            return torch.full_like(scales, uniform)
        overlaps = self._along_directions(scales) / factors.s.double().clamp(min=TINY)
        found = direction_gains(factors, overlaps, uniform, floor, self._recipe.largest_gain)
        # Components stand for singular directions in the order of their strengths.
        gains = torch.empty_like(scales)
        gains[self._strengths(scales).argsort(descending=True, stable=True)] = found.float()
        return gains

    def _along_directions(self, scales: Tensor) -> Tensor:
        """Return u_k^T decoded v_k for the leading singular directions of the delta: float64 [r]."""
        left, right = self.u.plain() @ self._factors.u, self.v.plain() @ self._factors.v.T
        return (left.T @ (scales[:, None] * right)).diagonal().double()

    def _strengths(self, scales: Tensor) -> Tensor:
        """Return the norm of each component: float32 [r]."""
        strengths: Tensor = scales.abs() * self.u.plain().norm(dim=1) * self.v.plain().norm(dim=1)
        return strengths

    def _system(self) -> Tensor:
        """Return the inner products of the components without their scales: float64 [r, r]."""
        u, v = self.u.plain(), self.v.plain()
        return ((u @ u.T) * (v @ v.T)).double()

    def bands(self, scales: Tensor) -> list[BandFactors]:
        """Return the components as bands, widths descending, the strongest component of each width first.

        Parameters
        ----------
        scales : float32 [r]
            Scales of the components.
        """
        u, v = self.u.plain(), self.v.plain()
        strengths = self._strengths(scales)
        bands = []
        for bits in sorted(set(self._widths), reverse=True):
            members = [k for k, other in enumerate(self._widths) if other == bits]
            members.sort(key=lambda k: -float(strengths[k]))
            if width_of(bits).has_scales:
                left, right = self.u.quantized(members), self.v.quantized(members)
                bands.append(BandFactors(left, right, scales[members].numpy()))
            else:
                # Codes that are floating-point numbers take the scale into both vectors.
                of_u, of_v = balanced(u, v, scales)
                left, right = self.u.quantized(members, of_u), self.v.quantized(members, of_v)
                bands.append(BandFactors(left, right, NO_NUMBERS))
        return bands


def balanced(u: Tensor, v: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors on u and on v whose products are the scales, and which give both vectors elements of one size.

    Neither vector leaves the range of float16 then, whose codes have no scales.

    Parameters
    ----------
    u : float32 [r, m]
        Left vectors.
    v : float32 [r, n]
        Right vectors.
    scales : float32 [r]
        Scales of the components.

    Returns
    -------
    of_u, of_v : float32 [r]
        One factor for each vector.
    """
    # Elements of one size: of_u * rms(u) = of_v * rms(v), and of_u * of_v = scale.
    ratio = (v.square().mean(1) / u.square().mean(1).clamp(min=TINY)).clamp(min=TINY).sqrt()
    of_u = (scales.abs() * ratio).sqrt()
    return of_u * scales.sign(), scales.abs() / of_u.clamp(min=TINY)
