"""The KL of two output layers in chunks: that of all logits, with its gradient, and never with all logits in memory."""

import pytest
import torch

from dtscodec.calibration.output_divergence import OutputDivergence
from dtscodec.evaluation.prediction_sums import kl_terms
from tests.calibration.test_weight_gradients import Seen

CHOICES, FEATURES, COUNT = 3000, 8, 50


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    """Return weights and inputs of two output layers that differ a little."""
    torch.manual_seed(0)
    weight, rows = torch.randn(CHOICES, FEATURES), torch.randn(COUNT, FEATURES)
    pairs = [weight, weight + 0.01 * torch.randn_like(weight), rows, rows + 0.02 * torch.randn_like(rows)]
    return [tensor.to(dtype) for tensor in pairs[:2]] + pairs[2:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("elements", [CHOICES * 7, 10])
def test_sum_and_gradients_are_those_of_all_logits(
    dtype: torch.dtype, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtscodec.calibration.output_divergence.CHUNK_ELEMENTS", elements)
    monkeypatch.setattr("dtscodec.calibration.output_divergence.BLOCK_ELEMENTS", elements)
    true_weight, weight, true, found = inputs(dtype)
    whole = [weight.float().requires_grad_(), found.clone().requires_grad_()]
    logs = [torch.log_softmax(rows @ matrix.float().T, -1) for rows, matrix in ((true, true_weight), whole[::-1])]
    expected = kl_terms(*logs).sum()
    gradients = torch.autograd.grad(0.5 * expected, whole)
    seen = Seen(weight.shape)
    divergence = OutputDivergence(true_weight, weight, seen)
    total, gradient = divergence.backward(true, found, 0.5)
    is_exact = dtype == torch.float32
    rtol, atol = (1e-3, 1e-5) if is_exact else (0.1, 0.02)
    torch.testing.assert_close(total, expected.detach(), rtol=1e-3 if is_exact else 2e-2, atol=1e-6)
    torch.testing.assert_close(divergence.sum(true, found), total)
    torch.testing.assert_close([seen.found.float(), gradient], list(gradients), rtol=rtol, atol=atol)


def test_logits_of_a_chunk_only_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtscodec.calibration.output_divergence.CHUNK_ELEMENTS", 4 * CHOICES)
    true_weight, weight, true, found = inputs(torch.float32)
    sizes: list[int] = []
    real = torch.log_softmax

    def log_softmax(logits: torch.Tensor, dim: int) -> torch.Tensor:
        sizes.append(logits.untyped_storage().nbytes() // 4)
        return real(logits, dim)

    monkeypatch.setattr(torch, "log_softmax", log_softmax)
    OutputDivergence(true_weight, weight, Seen(weight.shape)).backward(true, found, 1.0)
    assert max(sizes) == 4 * CHOICES
