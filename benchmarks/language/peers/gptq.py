"""GPTQ: round a matrix column by column, and let the columns that follow make up for the error in the outputs.

Source: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323. The
columns of largest second moment come first ("act-order"), on grids that were chosen beforehand ("static groups"), so
that no order is stored.
"""

import torch
from torch import Tensor

from benchmarks.fidelity.peers.grid import Grid

DAMPING = 0.01


def round_by_gptq(weights: Tensor, grid: Grid, moments: Tensor) -> Tensor:
    """Return values of the grid whose products with the inputs are near those of the weights.

    Parameters
    ----------
    weights : Tensor
        [rows, columns], float32.
    grid : Grid
        Of each element.
    moments : Tensor
        Second moments of the inputs, [columns, columns].
    """
    order = moments.diagonal().argsort(descending=True)
    factor = _inverse_factor(moments[order][:, order])
    # A row for each column, so that those still to be rounded are contiguous.
    left, rounded = weights.T[order].clone(), torch.empty_like(weights)
    for step, column in enumerate(order.tolist()):
        rounded[:, column] = grid.columns(column).round(left[step])
        error = (left[step] - rounded[:, column]) / factor[step, step]
        left[step + 1 :].addr_(factor[step, step + 1 :], error, alpha=-1)
    return rounded


def _inverse_factor(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of damped moments, float32."""
    damped = moments.double()
    diagonal = damped.diagonal()
    # Inputs that are always zero would leave nothing to divide by.
    diagonal[diagonal == 0] = 1
    diagonal += DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
