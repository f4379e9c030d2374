"""Spectra and leading singular triplets of matrices, by the shorter side's Gram matrix or by subspace iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.linalg.chunks import squared_norm
from dtscodec.linalg.subspace_iteration import OVERSAMPLING, leading_triplets
from dtscodec.linalg.svd import canonical_signs, lapack_errors

WIDENED_ELEMENTS = 2**22
"""Elements of a matrix that are widened to float64 at a time."""
SMALL_SIDE = 768
"""Matrices up to this side are decomposed in full, which takes little time."""
LEAST_RATIO = 4
"""Subspace iteration pays where the shorter side is at least this multiple of the triplets that it finds."""


def singular_values(delta: Tensor, least: int | None = None, share: float = 0.0, device: str = "cpu") -> Tensor:
    """All singular values of a matrix, descending.

    From the Gram matrix of the shorter side in float64, whose rounding is far below that of a float32 SVD: a tall
    matrix, such as an embedding, takes no more than its short side squared. If few are needed of many, only these are
    computed (`dtscodec.linalg.subspace_iteration`), and the others estimated (`extrapolate_spectrum`).

    Parameters
    ----------
    delta : float32 [m, n]
    least : int, optional
        How many of them must be computed; by default all.
    share : float
        Share of the squared norm that the computed ones must hold: as many more are computed.
    device : str
        What multiplies where few are needed.

    Returns
    -------
    float64 [min(m, n)]
    """
    count = min(delta.shape) if least is None else least
    with lapack_errors():
        while _are_few(count, delta):
            leading, whole = leading_triplets(delta.to(device), count)[1], squared_norm(delta)
            if float(leading.square().sum()) >= share * whole:
                return extrapolate_spectrum(leading, whole, min(delta.shape))
            count *= 2
        squares: Tensor = torch.linalg.eigvalsh(gram(delta))
    return squares.clamp(min=0).sqrt().flip(0)


@dataclass(frozen=True, slots=True)
class Factors:
    """The leading singular triplets of a matrix, as of `truncated_svd`, and all its singular values, descending.

    Those beyond the triplets may be estimates.
    """

    u: Tensor
    s: Tensor
    v: Tensor
    spectrum: Tensor


def leading_factors(delta: Tensor, rank: int, device: str = "cpu") -> Factors:
    """As `truncated_svd`, by way of the shorter side's Gram matrix or by subspace iteration, as `singular_values`.

    Vectors of singular values that are zero to working precision are zero on the longer side.
    """
    rows, columns = delta.shape
    with lapack_errors():
        if _are_few(rank, delta):
            u, leading, v = leading_triplets(delta.to(device), rank)
            spectrum = extrapolate_spectrum(leading, squared_norm(delta), min(rows, columns)).float()
            return Factors(*canonical_signs(u, leading.float(), v), spectrum)
        squares, vectors = torch.linalg.eigh(gram(delta))
    spectrum = squares.clamp(min=0).sqrt().flip(0).float()
    s, short = spectrum[:rank], vectors.flip(1)[:, :rank].float()
    inverse = torch.where(s > 1e-7 * s.max(), 1 / s, 0)
    if rows < columns:
        u, v = short, (short.T @ delta) * inverse[:, None]
    else:
        u, v = (delta @ short) * inverse, short.T
    return Factors(*canonical_signs(u, s, v), spectrum)


def _are_few(count: int, delta: Tensor) -> bool:
    """Whether subspace iteration finds so many singular triplets sooner than a Gram matrix finds all."""
    side = min(delta.shape)
    return side > SMALL_SIDE and LEAST_RATIO * (count + OVERSAMPLING) <= side


def gram(delta: Tensor) -> Tensor:
    """Gram matrix of the shorter side of a matrix, float32 [m, n]: float64 [min(m, n), min(m, n)]."""
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T
    total = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    step = max(1, WIDENED_ELEMENTS // max(1, tall.shape[1]))
    for begin in range(0, len(tall), step):
        wide = tall[begin : begin + step].double()
        total.addmm_(wide.T, wide)
    return total


BISECTIONS = 60
LARGEST_EXPONENT = 64.0


def extrapolate_spectrum(leading: Tensor, square: float, count: int) -> Tensor:
    """Fill up a spectrum by a power law that goes on from the last known value.

    Spectra of deltas fall about as power laws do. The exponent is the one at which the squares add up to what is left
    of the squared norm, so that nothing is counted that is not there.

    Parameters
    ----------
    leading : float64 [k]
        The largest singular values, descending, k >= 1.
    square : float
        Squared Frobenius norm of the matrix.
    count : int
        Singular values in all, at least k.

    Returns
    -------
    float64 [count]
        Descending.

    Examples
    --------
    >>> squares = 1 / torch.arange(1, 5).double()
    >>> extrapolate_spectrum(squares[:2].sqrt(), float(squares.sum()), 4).square()
    tensor([1.0000, 0.5000, 0.3333, 0.2500], dtype=torch.float64)
    """
    known = len(leading)
    left = max(0.0, square - float(leading.square().sum()))
    last = float(leading[-1])
    if known == count or not left or not last:
        return torch.nn.functional.pad(leading, (0, count - known))
    places = torch.arange(known + 1, count + 1, dtype=torch.float64) / known
    low, high = 0.0, LARGEST_EXPONENT
    for _ in range(BISECTIONS):
        power = (low + high) / 2
        if float((last * places**-power).square().sum()) > left:
            low = power
        else:
            high = power
    return torch.cat([leading, last * places**-high])
