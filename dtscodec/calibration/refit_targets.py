"""What the vectors of a low-rank block would be if they were not quantized: the start of latent codes.

A fit that starts at the decoded values must push a code half way to the next one before it changes. The targets of one
more round of coordinate descent (`dtscodec.encoding.fitting.coordinate_descent`) know which codes were nearly others.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dtscodec.calibration.latent_codes import LatentCodes
from dtscodec.calibration.student import Student
from dtscodec.kernels.unpack import unpack_factors
from dtscodec.quantize.scalar import TINY

LEAST_AGREEMENT = 0.1
"""Least projection of a target on its vector. Below it, other components hold what the vector stands for."""


def start_at_targets(codes: LatentCodes, student: Student, read_fine_tune: Callable[[str], Tensor]) -> None:
    """Set the latent codes of a student to the targets of one more refit, and write the nearest codes.

    Parameters
    ----------
    codes : LatentCodes
        Those of the student.
    student : Student
        The decoded model.
    read_fine_tune : callable
        Returns a tensor of the fine-tune by its name in the pack.
    """
    for name, row, packed in student.factors():
        # What the decoded rows of the block lack.
        true, decoded = read_fine_tune(name).to(packed.store.device), student.read(name)
        error = (true.float() - decoded.float()).view(-1, packed.columns)
        residual = error[row : row + packed.block.height][packed.where()]
        codes.start_from(packed, *refit_targets(*unpack_factors(packed), residual))


def refit_targets(left: Tensor, right: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors of least squared error, each with all others fixed, in the size of the decoded ones.

    Parameters
    ----------
    left : float32 [r, m]
        Decoded left vectors, with scales.
    right : float32 [r, n]
        Decoded right vectors.
    residual : float32 [m, n]
        The true delta minus the decoded one, ``left.T @ right``.

    Returns
    -------
    left, right : float32 [r, m] and [r, n]
        The projection of each vector on the decoded one is the decoded one.
    """
    # Without the gain, which least squares would undo: project the true delta on the decoded one.
    products = (left @ left.T) * (right @ right.T)
    square = products.sum().clamp(min=TINY)
    shrunk = 1 + (left @ residual * right).sum() / square
    rest = residual + (1 - shrunk) * (left.T @ right)
    lefts = shrunk * left + right @ rest.T / right.square().sum(1, keepdim=True).clamp(min=TINY)
    rights = shrunk * right + left @ rest / left.square().sum(1, keepdim=True).clamp(min=TINY)
    return _in_size(lefts, left), _in_size(rights, right)


def _in_size(targets: Tensor, vectors: Tensor) -> Tensor:
    """Divide each target by its projection on its vector; targets that differ altogether are not taken."""
    agreement = (targets * vectors).sum(1, keepdim=True) / vectors.square().sum(1, keepdim=True).clamp(min=TINY)
    return torch.where(agreement > LEAST_AGREEMENT, targets / agreement.clamp(min=LEAST_AGREEMENT), vectors)
