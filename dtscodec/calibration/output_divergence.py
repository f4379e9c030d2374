"""KL of two language models from the inputs of their output layers, without ever holding the logits of all predictions.

Logits of a chunk of predictions are computed, the KL and its gradient are taken from them, and they are dropped. With
49,152 tokens and 1,024 predictions all logits of both models would take 0.4 GB in float32, and their gradient as much.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dtscodec.calibration.weight_gradients import WeightGradient

CHUNK_ELEMENTS = 2**24
"""Logits of a model that are in memory at a time: 64 MiB in float32."""
BLOCK_ELEMENTS = 2**19
"""Logits that the softmax is computed for at a time, so that all its steps stay in a core's cache."""


class OutputDivergence:
    """Sums KL(fine-tune || decoded) over predictions, and the gradient of the decoded model's side. For one batch.

    Parameters
    ----------
    true_weight, weight : float [choices, features]
        Weights of the output layers of the fine-tune and of the decoded model.
    gradient : WeightGradient or None
        The gradient of `weight`; None if it is not fitted.
    """

    def __init__(self, true_weight: Tensor, weight: Tensor, gradient: WeightGradient | None) -> None:
        self._true_weight, self._weight, self._gradient = true_weight.detach(), weight.detach(), gradient
        self._is_half = weight.dtype != torch.float32
        # For `_logits`.
        self._weight_difference = self._weight - self._true_weight if self._is_half else None

    @torch.no_grad()
    def sum(self, true: Tensor, found: Tensor) -> Tensor:
        """Return the sum of the KL over predictions: float32 scalar.

        Parameters
        ----------
        true, found : float [predictions, features]
            Inputs of the output layers.
        """
        return self._run(true, found, lambda chunk, logits: None)

    @torch.no_grad()
    def backward(self, true: Tensor, found: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Add the gradient of `weight` to what it is decoded from, and return the sum and the gradient of `found`.

        Parameters
        ----------
        true, found : float [predictions, features]
            Inputs of the output layers.
        scale : float
            Factor of both gradients.

        Returns
        -------
        sum : float32 scalar
            The sum of the KL, without the factor.
        gradient : float, of the shape of `found`
            Times the factor.
        """
        result = torch.empty_like(found)

        def take(chunk: slice, logits: Tensor) -> None:
            dy = logits.mul_(scale).to(self._weight.dtype)
            result[chunk] = dy @ self._weight
            if self._gradient is not None:
                self._gradient.add_product(found[chunk].to(dy.dtype), dy)

        return self._run(true, found, take), result

    def _run(self, true: Tensor, found: Tensor, take: Callable[[slice, Tensor], None]) -> Tensor:
        """Sum the KL chunk by chunk. `take` gets the gradient of each chunk's logits: float32 [count, choices]."""
        total = torch.zeros((), device=found.device)
        rows = max(1, CHUNK_ELEMENTS // len(self._weight))
        for begin in range(0, len(found), rows):
            chunk = slice(begin, begin + rows)
            true_logits, logits = self._logits(true[chunk], found[chunk])
            step = max(1, BLOCK_ELEMENTS // len(self._weight))
            for start in range(0, len(logits), step):
                total += _divergence(true_logits[start : start + step], logits[start : start + step])
            take(chunk, logits)
        return total

    def _logits(self, true: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of both models: float32 [count, choices].

        In half precision both products would be rounded on their own, by more than they differ. So the difference of
        the logits is computed from those of inputs and weights, and added to the fine-tune's.
        """
        if self._weight_difference is None:
            return true @ self._true_weight.T, found @ self._weight.T
        true_rows = true.to(self._weight.dtype)
        true_logits = (true_rows @ self._true_weight.T).float()
        difference = (found - true_rows).to(self._weight.dtype) @ self._weight.T
        difference.addmm_(true_rows, self._weight_difference.T)
        return true_logits, true_logits + difference


def _divergence(true: Tensor, found: Tensor) -> Tensor:
    """Return the sum of the KL over rows of logits, and replace those of the decoded model by their gradient."""
    true_logs, logs = torch.log_softmax(true, dim=-1), torch.log_softmax(found, dim=-1)
    probabilities = true_logs.exp()
    total = true_logs.sub_(logs).mul_(probabilities).sum()
    found.copy_(logs.exp_().sub_(probabilities))
    return total
