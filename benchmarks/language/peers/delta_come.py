"""Delta-CoMe on a language model: rounded to nearest without data, and by GPTQ on calibration texts as published.

Source: "Delta-CoMe: Training-Free Delta-Compression with Mixed-Precision", NeurIPS 2024, arXiv 2406.08903,
thunlp/Delta-CoMe (`llama.py`; its `gptq.py` was not published). Layer by layer, and in a layer as the signal runs
(query, key and value; output; gate and up; down), the right vectors are rounded for the inputs that the coded model has
there, and the left vectors for what the rounded right vectors and the singular values make of those inputs; each band
by itself. The authors code attention and MLP only. Scales and zeros belong to 128 elements along a vector, for left
vectors too: along the components, as in an ordinary GPTQ of the left factor, a band of few components would take more
bits for scales than for codes.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from benchmarks.fidelity.peers.delta_come import Plan, bands, round_bands
from benchmarks.fidelity.peers.grid import Grid, grid_of
from benchmarks.fidelity.peers.matrices import Matrices, Spectrum, is_embedding
from benchmarks.fidelity.peers.peer import UNCHANGED, Coded, Deltas, by_matrix, whole_bytes
from benchmarks.language.calibration import Calibration
from benchmarks.language.peers.gptq import round_by_gptq
from benchmarks.language.peers.layers import Layer, first_batches

GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""Linear modules of a layer in the order of the signal; those of a group have the same inputs."""


def code_for_inputs(spectrum: Spectrum, moments: Tensor, plan: Sequence[tuple[int, int]]) -> tuple[Tensor, int]:
    """Return a matrix by its rounded singular vectors, and its bytes.

    Parameters
    ----------
    spectrum : Spectrum
        SVD of the matrix.
    moments : Tensor
        Second moments of its inputs, [n, n].
    plan : sequence of (int, int)
        Bits and number of components of each band.
    """
    ends = list(accumulate((count for _, count in plan), initial=0))
    parts = [slice(*pair) for pair in pairwise(ends)]
    # Rows are rounded each by itself: those of all bands at once.
    right_grid = Grid.stacked([grid_of(spectrum.v[part], bits) for part, (bits, _) in zip(parts, plan, strict=True)])
    right = round_by_gptq(spectrum.v[: ends[-1]], right_grid, moments)
    # What the left vectors are multiplied with: S V' x.
    inputs = spectrum.s[: ends[-1], None] * right
    left, nbits = [], right_grid.nbits + 32 * ends[-1]
    for part, (bits, _) in zip(parts, plan, strict=True):
        left_grid = grid_of(spectrum.u[:, part].T, bits)
        left.append(round_by_gptq(spectrum.u[:, part], left_grid.transposed(), inputs[part] @ moments @ inputs[part].T))
        nbits += left_grid.nbits
    return torch.cat(left, 1) @ inputs, whole_bytes(nbits)


@torch.no_grad()
def code_by_gptq(calibration: Calibration, share: float, plan: Plan, deltas: Deltas) -> Coded:
    """Code the matrices of all layers, each for the inputs that it gets from the model as coded up to there.

    Embeddings, where there are deltas of them, are rounded to nearest: their inputs are uncorrelated.

    Parameters
    ----------
    calibration : Calibration
        Texts and the base.
    share : float
        Share of the plan's components.
    plan : Plan
        Bits of the components.
    deltas : Matrices
        The deltas.
    """
    embeddings = {name: delta for name, delta in deltas.items() if is_embedding(name)}
    coded = by_matrix(
        Matrices(embeddings), lambda name, delta: round_bands(deltas.svd(name), bands(delta.shape, share, plan))
    )
    model = calibration.load_model(calibration.base, coded.deltas)
    decoded, size = dict(coded.deltas), coded.size
    with torch.autocast("cpu", torch.bfloat16):
        batches = first_batches(model, calibration.batches)
        for index, module in enumerate(model.model.layers):
            layer = Layer(module, batches)
            for group in GROUPS:
                moments = layer.moments(group[0])
                for name in group:
                    full = f"model.layers.{index}.{name}.weight"
                    with torch.autocast("cpu", enabled=False):
                        decoded[full], cost = _code_matrix(deltas, full, moments, share, plan)
                    size += cost
                    layer.add(name, decoded[full])
            batches = layer.outputs()
    return Coded(decoded, size)


def _code_matrix(deltas: Deltas, name: str, moments: Tensor, share: float, plan: Plan) -> tuple[Tensor, int]:
    delta = deltas[name]
    if not delta.any():
        return torch.zeros_like(delta), UNCHANGED
    return code_for_inputs(deltas.svd(name), moments, bands(delta.shape, share, plan))
