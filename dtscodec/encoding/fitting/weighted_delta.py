"""A delta in the norm that is minimized: all elements count alike, or as an activation metric weights them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.linalg.essential_subspace import essential_factors
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors, leading_factors


@dataclass(frozen=True, slots=True)
class WeightedDelta:
    """A delta D under an activation metric R (`dtscodec.activations.metric`).

    Parameters
    ----------
    delta : float32 [m, n] or Factored
        D R, or R^T D where the layer's inputs enter by rows; D itself without a metric.
    by_left, by_right : float32 [m, n] or Factored
        D with only its rows weighted, and with only its columns weighted: one of both is D itself.
    factors : Factors
        Leading singular triplets of `delta`.
    start : Factors
        Triplets of D that coordinate descent starts from: the leading ones, or with a metric those of the essential
        subspace.
    left, right : callable
        Weight left vectors [r, m] and right vectors [r, n].
    """

    delta: Tensor | Factored
    by_left: Tensor | Factored
    by_right: Tensor | Factored
    factors: Factors
    start: Factors
    left: Callable[[Tensor], Tensor]
    right: Callable[[Tensor], Tensor]

    @classmethod
    def plain(cls, delta: Tensor | Factored, factors: Factors) -> "WeightedDelta":
        """Return a delta whose elements count alike.

        Parameters
        ----------
        delta : float32 [m, n] or Factored
            The delta D.
        factors : Factors
            Its leading singular triplets.
        """
        same = lambda vectors: vectors  # noqa: E731
        return cls(delta, delta, delta, factors, factors, same, same)

    @classmethod
    def through(cls, metric: Metric, delta: Tensor, rank: int, device: str) -> "WeightedDelta":
        """Return a delta that counts by how much it changes a layer's outputs.

        Parameters
        ----------
        metric : Metric
            The activation metric of the layer.
        delta : float32 [m, n]
            The delta D.
        rank : int
            Number of leading singular triplets to compute.
        device : str
            Device for products.

        Raises
        ------
        SvdError
            LAPACK did not converge.
        """
        delta, metric = delta.to(device), replace(metric, root=metric.root.to(device))
        weighted = metric.matrix(delta)
        # R weights one side only, by which the layer's inputs enter.
        by_left, by_right = (weighted, delta) if metric.on_rows else (delta, weighted)
        factors = leading_factors(weighted, rank, device)
        # Components decode to D, so they start from triplets of D, not of D R.
        start = essential_factors(delta, factors, rank, metric.on_rows)
        return cls(weighted, by_left, by_right, factors, start, metric.left, metric.right)
