"""The activation metric: a norm of deltas that measures the change of a layer's outputs.

The squared change of a layer's outputs over inputs X is ``||X D^T||^2 = ||D R||^2`` with ``R R^T = X^T X``.
`dtscodec.linalg.essential_subspace` finds the best approximation of low rank in it.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from dtscodec.activations.gram_file import Gram
from dtscodec.errors import EncodeError, Remedy
from dtscodec.linalg.essential_subspace import symmetric_root


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric of a layer's inputs on its weight.

    Parameters
    ----------
    root : float32 [d_in, any]
        R, scaled so that the mean squared norm of its rows is 1.
    on_rows : bool
        Whether the layer's inputs are the rows of the matrix, for a weight [d_in, d_out], rather than the columns.
    """

    root: Tensor
    on_rows: bool = False

    @classmethod
    def of(cls, gram: Gram, damping: float) -> "Metric | None":
        """Return the metric of a Gram matrix; None if all inputs were zero.

        Parameters
        ----------
        gram : Gram
            The Gram matrix of the layer's inputs.
        damping : float
            See `Gram.damped`.
        """
        moment = gram.damped(damping)
        # Scaled to a mean diagonal of 1: with isotropic inputs, the metric is the plain norm.
        mean = float(moment.trace()) / max(1, len(moment))
        if not mean > 0:
            return None
        return cls(symmetric_root(moment / mean).float(), gram.input_first)

    def check(self, rows: int, columns: int) -> None:
        """Check that a matrix of this size has as many inputs as the metric.

        Parameters
        ----------
        rows, columns : int
            Size of the matrix.

        Raises
        ------
        EncodeError
            It has more or fewer.
        """
        # Inputs enter by the rows of a weight [d_in, d_out], by the columns of one [d_out, d_in].
        wanted = rows if self.on_rows else columns
        if len(self.root) != wanted:
            detail = f"expected a Gram matrix of {wanted} inputs, as the weight has, got one of {len(self.root)}"
            raise EncodeError(detail, Remedy("collect Gram matrices with this model"))

    def subset(self, rows: Tensor, columns: Tensor) -> "Metric":
        """Return the metric for a subset of rows and columns of the matrix, given as bool masks."""
        return replace(self, root=self.root[rows if self.on_rows else columns])

    def matrix(self, delta: Tensor) -> Tensor:
        """Return a matrix, float32 [m, n], multiplied by R: its Frobenius norm is the norm in the metric."""
        return self.root.T @ delta if self.on_rows else delta @ self.root

    def left(self, vectors: Tensor) -> Tensor:
        """Return left vectors, float32 [r, m], multiplied by R if it acts on rows."""
        return vectors @ self.root if self.on_rows else vectors

    def right(self, vectors: Tensor) -> Tensor:
        """Return right vectors, float32 [r, n], multiplied by R if it acts on columns."""
        return vectors if self.on_rows else vectors @ self.root
