"""Gradients of weights -> gradients of what they are decoded from, in the cheapest way.

The gradient of a linear layer's weight is G = dy^T x, for inputs x and gradients dy of the outputs. With W = B + L^T R,
the gradients of the factors are dL = R G^T = (x R^T)^T dy and dR = L G = (dy L^T)^T x, so G itself need not be formed:
these products take 2 t r (m + n) operations for t rows of inputs, where G and its products with the factors take
t m n + 2 r m n.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dtscodec.calibration.elementwise_delta import ElementwiseDelta
from dtscodec.calibration.latent_codes import LatentCodes
from dtscodec.calibration.number_gradients import add_factor_gradients, add_value_gradients
from dtscodec.decoding.reconstruct import LoadedBlock, LoadedTensor
from dtscodec.kernels.packed import PackedFactors, PackedValues
from dtscodec.kernels.reference import coded_positions
from dtscodec.kernels.unpack import unpack_factors


class WeightGradient:
    """The gradient of one weight, which is added to that of the numbers or elements that the weight is decoded from.

    Parameters
    ----------
    change : LoadedTensor
        The weight as the pack stores it.
    total : float32 [count]
        Gradient of all numbers of the store; or of all elements, if the weight's are free. Changed in place.
    elements : ElementwiseDelta, optional
        The weight's elements, if they are free.
    codes : callable, optional
        Returns the latent codes, which then get the gradients of the factors, too; or None.
    """

    def __init__(
        self,
        change: LoadedTensor,
        total: Tensor,
        elements: ElementwiseDelta | None = None,
        codes: Callable[[], LatentCodes | None] = lambda: None,
    ) -> None:
        self._shape = change.entry.spec.matrix(change.entry.split)
        self._blocks, self._total, self._elements, self._codes = change.blocks, total, elements, codes

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight, viewed as a matrix."""
        return self._shape

    def add(self, gradient: Tensor) -> None:
        """Add a gradient of the weight.

        Parameters
        ----------
        gradient : float
            Of the weight's shape.
        """
        matrix = gradient.reshape(self._shape)
        if self._elements is not None:
            self._elements.add_gradient(self._total, matrix)
            return
        for block in self._blocks:
            self._add_block(block, matrix[block.row : block.row + block.block.height])

    def add_product(self, x: Tensor, dy: Tensor) -> None:
        """Add the gradient dy^T x of the weight of a linear layer.

        Parameters
        ----------
        x : float [t, columns]
            Inputs of the layer.
        dy : float [t, rows]
            Gradient of its outputs.
        """
        if self._elements is not None:
            self.add((dy.T @ x).float())
            return
        for block in self._blocks:
            part = dy[:, block.row : block.row + block.block.height]
            if isinstance(block.payload, PackedFactors) and _is_cheaper(block.payload, len(x)):
                self._add_factors(block.payload, *_factored(block.payload, x, part))
            elif isinstance(block.payload, PackedFactors | PackedValues):
                self._add_block(block, (part.T @ x).float())

    def add_rows(self, ids: Tensor, dy: Tensor) -> None:
        """Add the gradient of the weight of an embedding.

        Parameters
        ----------
        ids : int64 [t]
            Rows that were looked up.
        dy : float32 [t, columns]
            Gradient of each of them.
        """
        (block,) = self._blocks if len(self._blocks) == 1 else (None,)
        if self._elements is None and block is not None and isinstance(block.payload, PackedFactors):
            self._add_factors(block.payload, *_looked_up(block.payload, ids, dy))
        else:
            self.add(dy.new_zeros(self._shape).index_add_(0, ids, dy))

    def _add_block(self, block: LoadedBlock, gradient: Tensor) -> None:
        match block.payload:
            case PackedFactors() as factors:
                part = gradient[factors.where()]
                left, right = unpack_factors(factors)
                self._add_factors(factors, right @ part.T, left @ part)
            case PackedValues() as values:
                add_value_gradients(values, gradient[values.where()], self._total)
            case _:
                pass  # Rows that are exact, or the base's.

    def _add_factors(self, factors: PackedFactors, left: Tensor, right: Tensor) -> None:
        """Add the gradients of the factors of a block: float32 [r, m] and [r, n]."""
        add_factor_gradients(factors, left, right, self._total)
        if (codes := self._codes()) is not None:
            codes.add_gradient(factors, left, right)


def _is_cheaper(factors: PackedFactors, rows: int) -> bool:
    """Return whether products with the factors take fewer operations than the gradient of the weight."""
    (m, n), rank = factors.coded_shape, factors.block.rank
    return 2 * rows * rank * (m + n) < rows * m * n + 2 * rank * m * n


def _factored(factors: PackedFactors, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of both factors from inputs and gradients of outputs."""
    # Only coded rows and columns have a delta.
    x = x if factors.cols is None else x.index_select(1, factors.cols.long())
    dy = dy if factors.rows is None else dy.index_select(1, factors.rows.long())
    left, right = (factor.to(x.dtype) for factor in unpack_factors(factors))
    return ((x @ right.T).T @ dy).float(), ((dy @ left.T).T @ x).float()


def _looked_up(factors: PackedFactors, ids: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of both factors from those of rows that were looked up."""
    left, right = unpack_factors(factors)
    at, is_coded = coded_positions(ids, factors)
    # Rows that are not coded do not depend on the factors.
    dy = (dy if factors.cols is None else dy.index_select(1, factors.cols.long())).float() * is_coded[:, None]
    return torch.zeros_like(left).index_add_(1, at, right @ dy.T), left[:, at] @ dy
