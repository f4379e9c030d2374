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

import torch
from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.format.blocks import BandFactors
from dtscodec.format.streams import NO_NUMBERS
from dtscodec.linalg.devices import product
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors, leading_factors
from dtscodec.quantize.four_groups import four_groups
from dtscodec.quantize.lloyd_max import fit_levels
from dtscodec.quantize.scalar import TINY, FittedVector, QuantizedVectors, fit_scale, quantize_vector
from dtscodec.quantize.widths import Bits, width_of

RIDGE = 1e-6
"""Share of the diagonal that is added where scales are solved for: components that repeat a direction are alike."""


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
        self._coarse = [k for k, bits in enumerate(widths) if width_of(bits).stored_levels]
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

    def _code_book(self, k: int) -> Tensor | None:
        """The levels of vector k; None if its codes stand for themselves."""
        width = width_of(self._widths[k])
        if width.fixed_levels is not None:
            return torch.from_numpy(width.fixed_levels)
        return self.levels[self._table[k]] if width.stored_levels else None

    def _quantize(self, k: int, vector: Tensor) -> FittedVector:
        """Quantize what vector k should be."""
        return quantize_vector(vector, self._widths[k], self._code_book(k))

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
            self._fitted[k] = fit_scale(targets[k], fitted.codes, self.levels[self._table[k]][fitted.codes])
            self.vectors[k] = self._fitted[k].values

    def round_levels(self, rounded: Callable[[Tensor], Tensor]) -> None:
        """Round the levels as they will be stored."""
        self.levels = rounded(self.levels)

    def plain(self) -> Tensor:
        """What the codes stand for, without scales: float32 [r, n]."""
        return torch.stack([self._plain(k, fitted) for k, fitted in enumerate(self._fitted)])

    def _plain(self, k: int, fitted: FittedVector) -> Tensor:
        code_book = self._code_book(k)
        return fitted.codes if code_book is None else code_book[fitted.codes]

    def quantized(self, chosen: Sequence[int], factors: Tensor | None = None) -> QuantizedVectors:
        """Return some vectors of one width.

        Parameters
        ----------
        chosen : sequence of int
            Which ones, in this order.
        factors : float32 [r], optional
            Factors on the vectors, for codes that stand for themselves.
        """
        width = width_of(self._widths[chosen[0]])
        codes = torch.stack([self._fitted[k].codes for k in chosen])
        if factors is not None:
            codes = codes * factors[list(chosen), None]
        levels = self.levels.numpy() if width.stored_levels else width.code_books(NO_NUMBERS)
        return QuantizedVectors(codes.numpy().astype(width.dtype), levels, width.bits)


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
