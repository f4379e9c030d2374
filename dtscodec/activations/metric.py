"""What of a delta a layer's inputs see: the metric in which its outputs, not its weights, are kept.

The squared change of a layer's outputs over inputs X is ``||X D^T||^2 = ||D R||^2`` with ``R R^T = X^T X``. The best
matrix of a low rank in it is made by `dtscodec.linalg.essential_subspace`.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from dtscodec.activations.gram_file import Gram
from dtscodec.errors import EncodeError, Remedy
from dtscodec.linalg.essential_subspace import symmetric_root


@dataclass(frozen=True, slots=True)
class Metric:
    """How inputs see the columns of a matrix, or its rows where the weight is [d_in, d_out].

    Parameters
    ----------
    root : float32 [d_in, any]
        R, scaled so that on average a direction counts 1.
    on_rows : bool
    """

    root: Tensor
    on_rows: bool = False

    @classmethod
    def of(cls, gram: Gram, damping: float) -> "Metric | None":
        """The metric of a layer's inputs; None if all of them were zero."""
        moment = gram.damped(damping)
        mean = float(moment.trace()) / max(1, len(moment))
        if not mean > 0:
            return None
        return cls(symmetric_root(moment / mean).float(), gram.input_first)

    def check(self, rows: int, columns: int) -> None:
        """Raise EncodeError unless a matrix of that size has such inputs."""
        wanted = rows if self.on_rows else columns
        if len(self.root) != wanted:
            detail = f"expected a Gram matrix of {wanted} inputs, as the weight has, got one of {len(self.root)}"
            raise EncodeError(f"{detail}", Remedy("calibrate with this model"))

    def subset(self, rows: Tensor, columns: Tensor) -> "Metric":
        """The same for some rows and columns of the matrix: bool masks."""
        return replace(self, root=self.root[rows if self.on_rows else columns])

    def matrix(self, delta: Tensor) -> Tensor:
        """A matrix, float32 [m, n], as the inputs see it: of the same norm if they see all directions alike."""
        return self.root.T @ delta if self.on_rows else delta @ self.root

    def left(self, vectors: Tensor) -> Tensor:
        """Left vectors, float32 [r, m], as the inputs see them."""
        return vectors @ self.root if self.on_rows else vectors

    def right(self, vectors: Tensor) -> Tensor:
        """Right vectors, float32 [r, n], as the inputs see them."""
        return vectors if self.on_rows else vectors @ self.root
