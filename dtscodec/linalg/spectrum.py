"""Spectra and leading singular triplets of matrices.

Small matrices are decomposed in full, by the Gram matrix of their shorter side. Of large ones, only the leading
triplets are computed, by subspace iteration, and the tail of the spectrum is extrapolated by a power law.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dtscodec.linalg.chunks import squared_norm
from dtscodec.linalg.subspace_iteration import EXTRA_VECTORS, leading_triplets
from dtscodec.linalg.svd import canonical_signs, lapack_errors

WIDENED_ELEMENTS = 2**22
"""Elements of a matrix that are converted to float64 at a time."""
SMALL_SIDE = 768
"""Matrices whose shorter side is at most this are decomposed in full, which takes little time."""
LEAST_RATIO = 4
"""Subspace iteration is used if the shorter side is at least this multiple of the vectors that it iterates."""
BISECTIONS = 60
"""Steps of the bisection for the exponent of a power law."""
LARGEST_EXPONENT = 64.0
"""Upper end of the bisection."""


def singular_values(delta: Tensor, least: int | None = None, share: float = 0.0, device: str = "cpu") -> Tensor:
    """Return all singular values of a matrix, computed or extrapolated.

    They come from the Gram matrix of the shorter side in float64, with rounding errors far below those of a float32
    SVD; for a tall matrix, such as an embedding, it takes memory of the short side squared. If few of many are needed,
    only these are computed (`dtscodec.linalg.subspace_iteration`), and the others extrapolated
    (`extrapolate_spectrum`).

    Parameters
    ----------
    delta : float32 [m, n]
        Finite.
    least : int, optional
        Number of singular values that must be computed; by default all.
    share : float
        Share of the squared norm that the computed ones must hold. Their number is doubled until they do.
    device : str
        Device for subspace iteration.

    Returns
    -------
    float64 [min(m, n)]
        Descending.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    count = min(delta.shape) if least is None else least
    with lapack_errors():
        # Subspace iteration, with more and more triplets until they hold the share of the squared norm.
        while _are_few(count, delta):
            leading, whole = leading_triplets(delta.to(device), count)[1], squared_norm(delta)
            if float(leading.square().sum()) >= share * whole:
                return extrapolate_spectrum(leading, whole, min(delta.shape))
            count *= 2
        # In full: squared singular values are the eigenvalues of the Gram matrix.
        squares: Tensor = torch.linalg.eigvalsh(gram(delta))
    # Eigenvalues ascend, and rounding may leave some below 0.
    return squares.clamp(min=0).sqrt().flip(0)


@dataclass(frozen=True, slots=True)
class Factors:
    """The leading singular triplets of a matrix, and its spectrum.

    Parameters
    ----------
    u : float32 [m, k]
        Left singular vectors, as columns.
    s : float32 [k]
        Singular values, descending.
    v : float32 [k, n]
        Right singular vectors, as rows.
    spectrum : float32 [min(m, n)]
        All singular values, descending. Those beyond the first k may be extrapolated.
    """

    u: Tensor
    s: Tensor
    v: Tensor
    spectrum: Tensor


def leading_factors(delta: Tensor, rank: int, device: str = "cpu") -> Factors:
    """Return the leading singular triplets of a matrix, like `truncated_svd` but by the methods of `singular_values`.

    Parameters
    ----------
    delta : float32 [m, n]
        Finite.
    rank : int
        Number of triplets, at most min(m, n).
    device : str
        Device for subspace iteration.

    Returns
    -------
    Factors
        Of singular values that are zero to working precision, the vectors on the longer side are zero.

    Raises
    ------
    SvdError
        LAPACK did not converge.
    """
    rows, columns = delta.shape
    with lapack_errors():
        if _are_few(rank, delta):
            u, leading, v = leading_triplets(delta.to(device), rank)
            spectrum = extrapolate_spectrum(leading, squared_norm(delta), min(rows, columns)).float()
            return Factors(*canonical_signs(u, leading.float(), v), spectrum)
        # Vectors of the shorter side are the eigenvectors of the Gram matrix.
        squares, vectors = torch.linalg.eigh(gram(delta))
    spectrum = squares.clamp(min=0).sqrt().flip(0).float()
    s, short = spectrum[:rank], vectors.flip(1)[:, :rank].float()
    # Vectors of the longer side: v = u^T D / s, or u = D v / s.
    inverse = torch.where(s > 1e-7 * s.max(), 1 / s, 0)
    if rows < columns:
        u, v = short, (short.T @ delta) * inverse[:, None]
    else:
        u, v = (delta @ short) * inverse, short.T
    return Factors(*canonical_signs(u, s, v), spectrum)


def _are_few(count: int, delta: Tensor) -> bool:
    """Return whether subspace iteration finds `count` singular triplets faster than a Gram matrix finds all."""
    side = min(delta.shape)
    return side > SMALL_SIDE and LEAST_RATIO * (count + EXTRA_VECTORS) <= side


def gram(delta: Tensor) -> Tensor:
    """Return the Gram matrix of a matrix's shorter side.

    Parameters
    ----------
    delta : float32 [m, n]
        The matrix.

    Returns
    -------
    float64 [min(m, n), min(m, n)]
    """
    # D^T D of a tall matrix, D D^T of a wide one: the smaller of both.
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T
    total = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    step = max(1, WIDENED_ELEMENTS // max(1, tall.shape[1]))
    for begin in range(0, len(tall), step):
        # Only some rows at a time are copied to float64.
        wide = tall[begin : begin + step].double()
        total.addmm_(wide.T, wide)
    return total


def extrapolate_spectrum(leading: Tensor, square: float, count: int) -> Tensor:
    """Extrapolate the tail of a spectrum by a power law that continues from the last known singular value.

    Spectra of deltas decay approximately as power laws. The exponent is chosen so that the squares of the tail add up
    to the rest of the squared norm, which is known.

    Parameters
    ----------
    leading : float64 [k]
        The largest singular values, descending, k >= 1.
    square : float
        Squared Frobenius norm of the matrix.
    count : int
        Number of all singular values, at least k.

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
    # Bisection for the exponent at which the energy of the tail is the energy left.
    places = torch.arange(known + 1, count + 1, dtype=torch.float64) / known
    low, high = 0.0, LARGEST_EXPONENT
    for _ in range(BISECTIONS):
        power = (low + high) / 2
        if float((last * places**-power).square().sum()) > left:
            low = power
        else:
            high = power
    # The upper end: the tail holds no more energy than is left.
    return torch.cat([leading, last * places**-high])
