"""A delta in the norm that counts: all elements alike, or as an activation metric weights them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.spectrum import Factors, leading_factors


@dataclass(frozen=True, slots=True)
class WeightedDelta:
    """A delta D under an activation metric R (`dtscodec.activations.metric`).

    Parameters
    ----------
    delta : float32 [m, n]
        D R, or R^T D where the layer's inputs enter by rows; D itself without a metric.
    by_left, by_right : float32 [m, n]
        D with only its rows weighted, and with only its columns weighted: one of both is D itself.
    factors : Factors
        Leading singular triplets of `delta`.
    left, right : callable
        Weight left vectors [r, m] and right vectors [r, n].
    """

    delta: Tensor | Factored
    by_left: Tensor | Factored
    by_right: Tensor | Factored
    factors: Factors
    left: Callable[[Tensor], Tensor]
    right: Callable[[Tensor], Tensor]

    @classmethod
    def plain(cls, delta: Tensor | Factored, factors: Factors) -> "WeightedDelta":
        """Return a delta whose elements count alike.

        Parameters
        ----------
        delta : float32 [m, n] or Factored
        factors : Factors
            Its leading singular triplets.
        """
        same = lambda vectors: vectors  # noqa: E731
        return cls(delta, delta, delta, factors, same, same)

    @classmethod
    def through(cls, metric: Metric, delta: Tensor, rank: int, device: str) -> "WeightedDelta":
        """Return a delta that counts by what it changes in a layer's outputs.

        Parameters
        ----------
        metric : Metric
        delta : float32 [m, n]
        rank : int
            Number of leading singular triplets to compute.
        device : str
            Device for products.
        """
        delta, metric = delta.to(device), replace(metric, root=metric.root.to(device))
        weighted = metric.matrix(delta)
        by_left, by_right = (weighted, delta) if metric.on_rows else (delta, weighted)
        factors = leading_factors(weighted, rank, device)
        return cls(weighted, by_left, by_right, factors, metric.left, metric.right)
