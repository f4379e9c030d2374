"""Lower bound of a delta's squared error for a number of bits spent on its singular vectors: water-filling.

The model. An m x n delta is a sum of components s_i u_i v_i'. The scales s_i are known and free; nothing is known of
the directions, so U and V are uniform among matrices of orthonormal columns. With the earlier ones known, u_i has m -
i free dimensions (i from 1; a unit norm and i - 1 right angles are taken off m) and v_i has n - i: in all k (m + n) -
k (k + 1) for k components, the dimension of the set of such pairs. The bits are spent on the vectors of each
component separately.

One vector. Coding a Gaussian vector of p dimensions with B bits leaves at least a share d = 2^(-2 B / p) of its
energy (Shannon 1959; Cover and Thomas, Elements of Information Theory, 2nd ed., theorem 10.3.2). A uniform unit
vector with p free dimensions is harder to code than that, at any d (its exact rate is that of a von Mises-Fisher test
channel; the tests compare the two), so this is a bound for it too.

One component. Let its vectors be coded with shares d_u and d_v lost. The best that can be decoded of u v' is the
product of the conditional means, which lacks a share 1 - (1 - d_u) (1 - d_v) of s^2. Of p and q dimensions, the best
split of the bits has d_u / (1 - d_u) = p t and d_v / (1 - d_v) = q t with one t > 0:

    kept(t) = 1 / ((1 + p t) (1 + q t)),    bits(t) = p/2 log2(1 + 1 / (p t)) + q/2 log2(1 + 1 / (q t)).

With p = q this is equal rates, and an error of s^2 (1 - (1 - d)^2). Few bits are worth little (what is kept goes with
their square), so kept is not concave in the bits; the bound takes its concave hull, as if a component could be coded
a part of the time. A long line from nothing to the point where it touches takes its place: 0.906 bits a dimension if
p = q.

All components of all matrices. Minimise the sum of errors under one number of bits: reverse water-filling (theorem
10.3.3 is the case of single variables). With a price of e an added bit, a component gets the bits where s^2 d kept /
d bits = e, which is a quadratic equation in t, or none if s^2 kept - e bits is negative there. What `bound` returns
is the value of the dual problem at that price. By weak duality this bounds the error from below whatever the price,
so it does not hang on how well the price was found.

What it is not. It bounds codes of singular vectors, component by component, in many dimensions. It does not bound
codes that use structure in the vectors, nor codes of the matrix itself: where the spectrum is flat and the matrix
square, few bits do up to five times more when spent on the elements directly than on factors.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Prices are searched from the highest that buys anything down to e^-300 of it: hundreds of bits a dimension, and its
# square is a float.
NEPERS = 300.0
HALVINGS = 60


def bound(spectra: Sequence[tuple[tuple[int, int], Floats]], bits: float) -> float:
    """Least total squared error of some matrices whose singular vectors share a number of bits.

    Parameters
    ----------
    spectra
        Shape and singular values, descending, of each matrix.
    bits
        For all of them together; infinity is allowed.

    Examples
    --------
    >>> spectra = [((100, 100), np.array([2.0, 1.0]))]
    >>> [round(bound(spectra, bits), 3) for bits in (0, 500, 2000, math.inf)]
    [5.0, 1.181, 0.007, 0.0]
    """
    if bits < 0 or math.isnan(bits):
        raise ValueError(f"bits: expected 0 or more, found {bits}")
    energies, p, q = _components(spectra)
    if not len(energies) or bits == math.inf:
        return 0.0
    total = float(energies.sum())
    slopes = 2 * math.log(2) * energies / (np.sqrt(p) + np.sqrt(q)) ** 2
    low, high = math.log(slopes.max()) - NEPERS, math.log(slopes.max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        spent, _ = _buy(energies, p, q, math.exp(middle))
        low, high = (middle, high) if spent > bits else (low, middle)
    price = math.exp(high)
    spent, kept = _buy(energies, p, q, price)
    return min(total, max(0.0, total - kept + price * (spent - bits)))


def _components(spectra: Sequence[tuple[tuple[int, int], Floats]]) -> tuple[Floats, Floats, Floats]:
    """Energy and free dimensions of the two vectors of every component that has energy."""
    parts = [np.empty((3, 0))]
    for (rows, columns), values in spectra:
        index = np.arange(1, len(values) + 1)
        # The last vectors of a square matrix are free up to a sign, which counts as one dimension.
        dimensions = np.maximum(rows - index, 1), np.maximum(columns - index, 1)
        parts.append(np.stack([np.square(values, dtype=np.float64), *dimensions]))
    energies, p, q = np.concatenate(parts, axis=1)
    moved = energies > 0
    return energies[moved], p[moved], q[moved]


def _buy(energies: Floats, p: Floats, q: Floats, price: float) -> tuple[float, float]:
    """Bits that components take at a price of an added bit, and the energy that those keep."""
    worth = 2 * math.log(2) * energies / price - p - q
    square = np.square(worth) - 4 * p * q
    takes = (worth > 0) & (square > 0)
    worth, square, p, q, energies = worth[takes], square[takes], p[takes], q[takes], energies[takes]
    # Of the two solutions the one of more bits; the other is where another bit gains ever more.
    t = 2 / (worth + np.sqrt(square))
    kept = energies / ((1 + p * t) * (1 + q * t))
    bits = (p * np.log1p(1 / (p * t)) + q * np.log1p(1 / (q * t))) / (2 * math.log(2))
    gains = kept > price * bits
    return float(bits[gains].sum()), float(kept[gains].sum())
