"""Four bits with outliers: the largest percent of the elements in fp16, the rest on 16 steps of one range.

Source: the package deltatensors 0.2.0, strategy `int4` (its default `outlier_fraction` of 0.01). Step and start of
the range are stored in fp16, after rounding with exact ones; outliers have 64-bit indices.

Bytes of a matrix of N elements with k = max(1, int(N / 100)) outliers: ceil((N - k) / 2) + k (2 + 8) + 4, some 15 %
of fp32. No option of it comes near the sizes of the other peers; it is here as what a user of a package gets.
"""

import torch
from torch import Tensor

from benchmarks.fidelity.peers.peer import Setting, by_matrix, leaving_embeddings, whole_bytes

OUTLIERS = 0.01
STEPS = 2**4 - 1


def settings() -> list[Setting]:
    """The package's default, with and without embeddings."""
    default = Setting("int4 with outliers", "1% outliers", lambda deltas, seed: by_matrix(deltas, code_outliers))
    return [default, leaving_embeddings(default)]


def code_outliers(name: str, delta: Tensor) -> tuple[Tensor, int]:
    """Outliers and steps of one matrix."""
    flat = delta.flatten()
    count = max(1, int(flat.numel() * OUTLIERS))
    ordinary = torch.ones(flat.numel(), dtype=torch.bool)
    ordinary[flat.abs().topk(count, sorted=False).indices] = False
    decoded = flat.half().float()
    decoded[ordinary] = _on_steps(flat[ordinary])
    return decoded.view(delta.shape), whole_bytes(4 * (flat.numel() - count)) + count * (2 + 8) + 4


def _on_steps(values: Tensor) -> Tensor:
    if not len(values):
        return values
    least, width = values.min(), values.max() - values.min()
    if width < 1e-8:
        return torch.full_like(values, least.half().item())
    codes = ((values - least) / width * STEPS).round()
    return codes * (width / STEPS).half().float() + least.half().float()
