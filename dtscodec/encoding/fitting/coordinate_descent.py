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
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.format.blocks import BandFactors
from dtscodec.linalg.devices import product
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors, leading_factors
from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.lloyd_max import fit_levels, nearest
from dtscodec.quantize.packing import PackedVectors, pack_codes
from dtscodec.quantize.widths import NORMAL_LEVELS, Bits

TINY = 1e-30
RIDGE = 1e-6
"""Share of the diagonal that is added where scales are solved for: components that repeat a direction are alike."""

_FIXED = torch.from_numpy(NORMAL_LEVELS)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A vector's codes, and what multiplies their values."""

    codes: Tensor
    scale: float
    values: Tensor


class Side:
    """One factor: r vectors of n elements, each at its width.

    Parameters
    ----------
    vectors : float32 [r, n]
        Of any norms.
    widths : sequence of int
        Bits an element, by vector; descending.
    recipe : Recipe
    """

    def __init__(self, vectors: Tensor, widths: Sequence[Bits], recipe: Recipe) -> None:
        self._widths, self._recipe = widths, recipe
        self._coarse = [k for k, width in enumerate(widths) if width == 2]
        # Which of the level tables a vector uses.
        self._table = {k: i if recipe.per_vector else 0 for i, k in enumerate(self._coarse)}
        self.levels = self._first_levels(vectors[self._coarse])
        self._fitted = [self._quantize(k, vector) for k, vector in enumerate(vectors)]
        self.vectors = torch.stack([fitted.values for fitted in self._fitted])

    def _first_levels(self, vectors: Tensor) -> Tensor:
        """Level tables of the vectors of two bits, scaled to a root mean square of 1: float32 [tables, levels]."""
        if not len(vectors):
            return torch.empty(0, self._recipe.levels)
        unit = vectors / vectors.square().mean(1, keepdim=True).sqrt().clamp(min=TINY)
        sets = unit if self._recipe.per_vector else unit.reshape(1, -1)
        if not self._recipe.fitted_levels:
            return four_groups(sets)[1]
        return torch.stack([fit_levels(values, self._recipe.levels) for values in sets])

    def _levels_of(self, k: int) -> Tensor:
        return _FIXED if self._widths[k] == 4 else self.levels[self._table[k]]

    def _quantize(self, k: int, vector: Tensor) -> Quantized:
        """The codes and the scale that lie nearest to what vector k is to be."""
        width = self._widths[k]
        if width == 16:
            return Quantized(vector, 1.0, vector)
        if width == 8:
            scale = max(float(vector.abs().max()) / 127, TINY)
            codes = (vector / scale).round().clamp(-127, 127)
            return self._scaled(vector, codes, codes)
        levels = self._levels_of(k)
        scale = max(float(vector.square().mean().sqrt()), TINY)
        for _ in range(3):
            codes = nearest(vector / scale, levels)
            values = levels[codes]
            scale = max(abs(float(vector @ values / (values @ values).clamp(min=TINY))), TINY)
        codes = nearest(vector / scale, levels)
        return self._scaled(vector, codes, levels[codes])

    @staticmethod
    def _scaled(vector: Tensor, codes: Tensor, values: Tensor) -> Quantized:
        scale = float(vector @ values / (values @ values).clamp(min=TINY))
        return Quantized(codes, scale, scale * values)

    def refit(self, other: Tensor, products: Tensor) -> None:
        """Fit each vector in turn to what all others leave of the delta.

        Parameters
        ----------
        other : float32 [r, m]
            The other factor's vectors as they decode.
        products : float32 [r, n]
            `other` times the delta.
        """
        overlaps = other @ other.T
        energies = overlaps.diagonal().clamp(min=TINY)
        targets = torch.empty_like(self.vectors)
        for k in range(len(self._widths)):
            rest = products[k] - overlaps[k] @ self.vectors
            targets[k] = rest / energies[k] + self.vectors[k] * (overlaps[k, k] / energies[k])
            self._fitted[k] = self._quantize(k, targets[k])
            self.vectors[k] = self._fitted[k].values
        if self._recipe.fitted_levels:
            self._refit_levels(targets, energies)

    def _refit_levels(self, targets: Tensor, energies: Tensor) -> None:
        """Move the levels to the means of their cells, each vector counting by its weight in the product."""
        sums, weights = (torch.zeros(self.levels.shape, dtype=torch.float64) for _ in range(2))
        for k in self._coarse:
            fitted, table, count = self._fitted[k], self._table[k], self.levels.shape[1]
            weight = float(energies[k]) * fitted.scale
            sums[table] += weight * torch.bincount(fitted.codes, targets[k].double(), count)
            weights[table] += weight * fitted.scale * torch.bincount(fitted.codes, minlength=count)
        moved = torch.where(weights > 0, sums / weights.clamp(min=TINY), self.levels.double()).float()
        if (moved.diff(dim=1) < 0).any():
            return
        self.levels = moved
        for k in self._coarse:
            fitted = self._fitted[k]
            self._fitted[k] = self._scaled(targets[k], fitted.codes, self._levels_of(k)[fitted.codes])
            self.vectors[k] = self._fitted[k].values

    def round_levels(self, rounded: Callable[[Tensor], Tensor]) -> None:
        """Round the levels as they will be stored."""
        self.levels = rounded(self.levels)

    def plain(self) -> Tensor:
        """What the codes stand for, without scales: float32 [r, n]."""
        return torch.stack([self._plain(k, fitted) for k, fitted in enumerate(self._fitted)])

    def _plain(self, k: int, fitted: Quantized) -> Tensor:
        return fitted.codes if self._widths[k] >= 8 else self._levels_of(k)[fitted.codes]

    def packed(self, chosen: Sequence[int], factors: Tensor) -> PackedVectors:
        """Some vectors of one width, packed; those of 16 bits multiplied by their factors, float32 [r]."""
        width = self._widths[chosen[0]]
        codes = torch.stack([self._fitted[k].codes for k in chosen])
        if width == 16:
            codes = codes * factors[list(chosen), None]
        stored = codes.numpy().astype({8: np.int8, 16: np.float16}.get(width, np.uint8))
        levels = self.levels.numpy() if width == 2 else np.empty((0, 4), np.float32)
        return PackedVectors(pack_codes(stored, width), levels, codes.shape[1], width)


@dataclass(frozen=True, slots=True)
class Sight:
    """A delta as the inputs of its layer see it (`dtscodec.activations.metric`), from both sides.

    Parameters
    ----------
    delta : float32
        As it is seen.
    by_left, by_right : float32
        The delta with its rows as they are seen, and with its columns: one of both is the delta itself.
    factors : Factors
        Leading singular triplets of the delta as it is seen.
    left, right : callable
        Left vectors [r, m] and right ones [r, n] as they are seen.
    """

    delta: Tensor | Factored
    by_left: Tensor | Factored
    by_right: Tensor | Factored
    factors: Factors
    left: Callable[[Tensor], Tensor]
    right: Callable[[Tensor], Tensor]

    @classmethod
    def plain(cls, delta: Tensor | Factored, factors: Factors) -> "Sight":
        """All elements count alike."""
        same = lambda vectors: vectors  # noqa: E731
        return cls(delta, delta, delta, factors, same, same)

    @classmethod
    def through(cls, metric: Metric, delta: Tensor, rank: int, device: str) -> "Sight":
        """Elements count as the metric has it; of `rank` singular triplets."""
        delta, metric = delta.to(device), replace(metric, root=metric.root.to(device))
        seen = metric.matrix(delta)
        by_left, by_right = (seen, delta) if metric.on_rows else (delta, seen)
        factors = leading_factors(seen, rank, device)
        return cls(seen, by_left, by_right, factors, metric.left, metric.right)


class Refined:
    """A delta as quantized components.

    Parameters
    ----------
    delta : float32 [m, n]
        On the device that is to multiply it; or known by its factors.
    factors : Factors
        Where to start from: its leading singular triplets, r of them.
    widths : sequence of int
        Bits an element of each component; descending.
    recipe : Recipe
    sight : Sight, optional
        How a layer's inputs see the delta, if what they see is to be kept; else all elements count alike.
    """

    def __init__(
        self,
        delta: Tensor | Factored,
        factors: Factors,
        widths: Sequence[Bits],
        recipe: Recipe,
        sight: "Sight | None" = None,
    ) -> None:
        self._sight = sight or Sight.plain(delta, factors)
        self._widths, self._recipe = list(widths), recipe
        self.u = Side((factors.u * factors.s).T.contiguous(), widths, recipe)
        self.v = Side(factors.v.contiguous(), widths, recipe)
        for _ in range(recipe.rounds):
            seen = self._sight.right(self.v.vectors)
            self.u.refit(seen, product(seen, self._sight.by_right.T))
            seen = self._sight.left(self.u.vectors)
            self.v.refit(seen, product(seen, self._sight.by_left))

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
        u, v = self._seen()
        wanted = (product(u, self._sight.delta) * v).sum(1).double()
        damped = system + RIDGE * torch.diag(system.diagonal()) + TINY * torch.eye(len(system), dtype=torch.float64)
        scales: Tensor = torch.linalg.solve(damped, wanted)
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
        factors, power = self._sight.factors, self._recipe.gain
        if power is None:
            return 1.0
        spectrum = factors.spectrum.double()[factors.spectrum > floor]
        u, v = self._seen()
        kept = ((u @ factors.u).T @ (scales[:, None] * (v @ factors.v.T))).diagonal().double()
        weights = (factors.s.double() / factors.s[0]).pow(power)
        wanted = float(((spectrum / factors.s[0]).pow(power) * spectrum).sum())
        got = float((weights * kept).sum())
        true = float(spectrum.square().sum())
        decoded = float(scales.double() @ self._system() @ scales.double())
        if got <= 0 or decoded <= 0:
            return 1.0
        return max(1.0, min(wanted / got, math.sqrt(true / decoded), self._recipe.largest_gain))

    def _system(self) -> Tensor:
        """Inner products of the components without their scales: float64 [r, r]."""
        u, v = self._seen()
        return ((u @ u.T) * (v @ v.T)).double()

    def _seen(self) -> tuple[Tensor, Tensor]:
        """What the codes of both factors stand for, as the metric sees it."""
        return self._sight.left(self.u.plain()), self._sight.right(self.v.plain())

    def bands(self, scales: Tensor) -> list[BandFactors]:
        """The components by width, the strongest of each first."""
        strengths = scales.abs() * self.u.plain().norm(dim=1) * self.v.plain().norm(dim=1)
        bands = []
        for width in sorted(set(self._widths), reverse=True):
            members = [k for k, other in enumerate(self._widths) if other == width]
            members.sort(key=lambda k: -float(strengths[k]))
            shared = balanced(self.u.plain(), self.v.plain(), scales) if width == 16 else (scales, scales)
            stored = NO_SCALES if width == 16 else scales[members].numpy()
            bands.append(BandFactors(self.u.packed(members, shared[0]), self.v.packed(members, shared[1]), stored))
        return bands


NO_SCALES: NDArray[np.float32] = np.empty(0, np.float32)


def balanced(u: Tensor, v: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of u and of v that multiply to the scales and give both vectors elements of one size.

    So that neither leaves the range of float16, which has no scales beside it.
    """
    ratio = (v.square().mean(1) / u.square().mean(1).clamp(min=TINY)).clamp(min=TINY).sqrt()
    of_u = (scales.abs() * ratio).sqrt()
    return of_u * scales.sign(), scales.abs() / of_u.clamp(min=TINY)
