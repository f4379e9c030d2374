"""BitDelta: the sign of each element, and one scale a matrix or one a row. As it starts, not distilled.

Source: "BitDelta: Your Fine-Tune May Only Be Worth One Bit", arXiv 2402.10193, FasterDecoding/BitDelta; by rows it is
the strategy `quantized` of the package deltatensors 0.2.0. The authors go on to train the scales on some 800 texts,
which is left out here as no peer gets data. They leave embeddings in full; at a few percent of the model those are
either coded too or left at the base's.

Bytes of an m x n matrix: ceil(m n / 8) + 4 with a scale in fp32, ceil(m n / 8) + 2 m with one in fp16 a row. The rate
is fixed.
"""

import torch
from torch import Tensor

from benchmarks.fidelity.peers.peer import Setting, by_matrix, leaving_embeddings, whole_bytes


def settings() -> list[Setting]:
    """Both kinds of scale, with and without embeddings."""
    matrix = Setting("BitDelta", "one scale a matrix", lambda deltas, seed: by_matrix(deltas, code_by_matrix))
    row = Setting("BitDelta (per row)", "one scale a row", lambda deltas, seed: by_matrix(deltas, code_by_row))
    return [matrix, leaving_embeddings(matrix), row, leaving_embeddings(row)]


def signs(delta: Tensor) -> Tensor:
    """+1 and -1; a zero counts as positive."""
    return torch.where(delta >= 0, 1.0, -1.0)


def code_by_matrix(name: str, delta: Tensor) -> tuple[Tensor, int]:
    """The mean magnitude, with the signs: of all scales the one of least squared error."""
    return delta.abs().mean() * signs(delta), whole_bytes(delta.numel()) + 4


def code_by_row(name: str, delta: Tensor) -> tuple[Tensor, int]:
    """The same, row by row."""
    scales = delta.abs().mean(dim=1, keepdim=True).half().float()
    return scales * signs(delta), whole_bytes(delta.numel()) + 2 * len(delta)
