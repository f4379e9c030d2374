"""Components in any code: allocation, and coordinate descent with the code in the loop, as in the preset `best`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.codes.codes import Code
from benchmarks.codes.matrices import Rows
from dtscodec.encoding.fitting.coordinate_descent import FittedComponents
from dtscodec.encoding.fitting.quantized_factor import QuantizedFactor
from dtscodec.encoding.presets.best import rounded_tensor
from dtscodec.encoding.presets.recipe import BEST, Recipe
from dtscodec.linalg.devices import product
from dtscodec.linalg.spectrum import Factors
from dtscodec.quantize.scalar import FittedVector

BLOCK_BYTES = 16
"""Bytes of a block beside its components and bitmaps: levels of two factors."""
BISECTIONS = 60
SIZE_ROUNDS, CLOSE = 3, 0.003
"""Corrections of the budget of codes whose size is known only after encoding, and the share at which they end."""


class CodedFactor(QuantizedFactor):
    """One factor of a low-rank delta: each vector in a code of its own; see `QuantizedFactor`."""

    def __init__(self, vectors: Tensor, codes: Sequence[Code], recipe: Recipe) -> None:
        self._recipe, self.levels = recipe, torch.empty(0)
        # Levels that the vectors of a code share.
        members = {code: [k for k, other in enumerate(codes) if other is code] for code in codes}
        shared = {code: code.fitted_to(vectors[places]) for code, places in members.items()}
        self._codes = [shared[code] for code in codes]
        self._widths = [2] * len(codes)
        self._fitted = [self._quantize(k, vector) for k, vector in enumerate(vectors)]
        self.vectors = torch.stack([fitted.values for fitted in self._fitted])

    def _quantize(self, k: int, vector: Tensor) -> FittedVector:
        return self._codes[k].quantize(vector)

    def _plain(self, k: int, fitted: FittedVector) -> Tensor:
        return fitted.codes

    def size(self) -> float:
        """Return the bytes of all vectors without scales."""
        return sum(code.size(fitted) for code, fitted in zip(self._codes, self._fitted, strict=True))


class CodedComponents(FittedComponents):
    """Components in any codes that are fitted to a delta on construction; see `FittedComponents`."""

    u: CodedFactor
    v: CodedFactor

    def __init__(self, delta: Tensor, factors: Factors, codes: Sequence[Code], recipe: Recipe) -> None:
        self._delta, self._factors, self._recipe = delta, factors, recipe
        self.u = CodedFactor((factors.u * factors.s).T.contiguous(), codes, recipe)
        self.v = CodedFactor(factors.v.contiguous(), codes, recipe)
        for _ in range(recipe.rounds):
            self.u.refit(self.v.vectors, product(self.v.vectors, delta.T))
            self.v.refit(self.u.vectors, product(self.u.vectors, delta))


@dataclass(frozen=True, slots=True)
class Offer:
    """Codes that components may have, and how the allocation values them.

    Parameters
    ----------
    name : str
        For tables.
    codes : sequence of Code
        Bits ascending.
    precision_weight : float
        As of `Recipe`, relative to the first code.
    """

    name: str
    codes: Sequence[Code]
    precision_weight: float = BEST.precision_weight

    def benefits(self) -> NDArray[np.float64]:
        """Return the share of a component's energy that the allocation credits to each code."""
        retained = np.array([code.retained for code in self.codes])
        benefits: NDArray[np.float64] = retained[0] + self.precision_weight * (retained - retained[0])
        return benefits


Choices = dict[str, tuple[Rows, list[Code]]]
"""By matrix: the rows that are coded, and the code of each component."""


def allocate(matrices: Mapping[str, Sequence[Rows]], offer: Offer, budget: float) -> Choices:
    """Share a budget of bytes among all matrices: the largest benefit, as `dtscodec.encoding.budget.allocate` does."""
    low, high = 1e-30, 1e10
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _at(matrices, offer, middle)[1] <= budget else (middle, high)
    return _at(matrices, offer, high)[0]


def _at(matrices: Mapping[str, Sequence[Rows]], offer: Offer, multiplier: float) -> tuple[Choices, float]:
    """Return the choices at a Lagrange multiplier, and their bytes."""
    choices: Choices = {}
    total = 0.0
    for name, subsets in matrices.items():
        best = 0.0
        spent = 0.0
        for rows in subsets:
            costs = np.array([code.cost(*rows.delta.shape) for code in offer.codes])
            net = rows.energies[:, None] * offer.benefits() - multiplier * costs
            chosen = net.argmax(axis=1)
            # Energies descend: the first component that does not pay ends the block.
            chosen = chosen[np.maximum.accumulate(net.max(axis=1) <= 0) == 0]
            fixed = rows.bitmap_bytes + BLOCK_BYTES
            value = float(net.max(axis=1)[: len(chosen)].sum()) - multiplier * fixed
            if value > best:
                best, spent = value, float(costs[chosen].sum()) + fixed
                choices[name] = rows, [offer.codes[i] for i in sorted(chosen, reverse=True)]
        total += spent
    return choices, total


@dataclass(frozen=True, slots=True)
class Coded:
    """A delta in some codes.

    Parameters
    ----------
    deltas : dict
        Decoded matrices by name; those that are left out are missing.
    size : float
        Bytes.
    error : float
        Relative error of all matrices before the gain.
    counts : dict
        Number of components of each code, by its name.
    """

    deltas: dict[str, Tensor]
    size: float
    error: float
    counts: dict[str, int]


def encode(matrices: Mapping[str, Sequence[Rows]], offer: Offer, budget: int, rounds: int) -> Coded:
    """Return all matrices in a number of bytes.

    Parameters
    ----------
    matrices : mapping
        See `changed_matrices`.
    offer : Offer
        The codes.
    budget : int
        Bytes; met within `CLOSE`.
    rounds : int
        Rounds of coordinate descent.
    """
    asked = float(budget)
    for _ in range(SIZE_ROUNDS):
        coded = _encode(matrices, allocate(matrices, offer, asked), replace(BEST, rounds=rounds))
        if abs(coded.size / budget - 1) <= CLOSE:
            break
        asked *= budget / coded.size
    return coded


def _encode(matrices: Mapping[str, Sequence[Rows]], choices: Choices, recipe: Recipe) -> Coded:
    deltas: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    size = error = whole = 0.0
    for name, subsets in matrices.items():
        energy = subsets[0].delta.energy
        whole += energy
        if name not in choices:
            error += energy
            continue
        rows, codes = choices[name]
        deltas[name], spent, missed = _encode_matrix(rows, codes, recipe)
        size += spent
        error += missed + max(0.0, energy - rows.delta.energy)
        for code in codes:
            counts[code.name] = counts.get(code.name, 0) + 1
    return Coded(deltas, size, math.sqrt(error / whole), counts)


def _encode_matrix(rows: Rows, codes: Sequence[Code], recipe: Recipe) -> tuple[Tensor, float, float]:
    """Return a decoded matrix with its gain, its bytes, and its squared error without the gain."""
    values = rows.values
    fitted = CodedComponents(values, rows.leading(len(codes)), codes, recipe)
    scales = fitted.solve_scales(rounded_tensor)
    left, right = fitted.u.plain() * scales[:, None], fitted.v.plain()
    missed = float((left.T @ right - values).double().square().sum()) * rows.unit**2
    gain = fitted.gain(scales, rows.noise_edge)
    size = fitted.u.size() + fitted.v.size() + sum(code.overhead for code in codes) + rows.bitmap_bytes + BLOCK_BYTES
    delta = rows.placed(left * (gain * rows.unit), right)
    return delta, size, max(0.0, missed - rows.delta.noise_energy)
