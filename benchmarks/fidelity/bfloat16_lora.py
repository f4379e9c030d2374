"""The merged LoRA in bfloat16: how much of it the encoder finds under the rounding."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dtscodec
from benchmarks.fidelity.lora import RANK
from benchmarks.fidelity.tasks import Weights
from dtscodec.packs.byte_counts import tensor_sizes

WEIGHT, DELTA = 0.02, 1e-3
"""Root mean squares that each matrix and each delta is scaled to."""
ULP_BITS = 8
"""Bits of a bfloat16 significand, the first one not stored."""


def half_rows(weights: Weights) -> list[dict[str, Any]]:
    """Packs of default size, all in bfloat16: of the LoRA as trained, some of whose directions are smaller than what
    rounding does to a weight, and of one of random factors.
    """
    trained = weights.matrices()
    changed = {name: delta for name, delta in trained.items() if delta.any()}
    generator = torch.Generator().manual_seed(0)
    random = {name: _random(delta, generator) for name, delta in changed.items()}
    return [
        {"factors": factors, **_packed(weights, trained | deltas)}
        for factors, deltas in (("as trained", trained), ("random", random))
    ]


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    """A matrix of the LoRA's rank."""
    rows, columns = like.shape
    return torch.randn(rows, RANK, generator=generator) @ torch.randn(RANK, columns, generator=generator)


def _packed(weights: Weights, deltas: Mapping[str, Tensor]) -> dict[str, Any]:
    """Size, ranks, and the share of weights that come back."""
    fine: dict[str, Tensor] = {}
    base: dict[str, Tensor] = {}
    for name, trained in weights.matrices().items():
        base[name] = _scaled(weights.fine[name] - trained, WEIGHT).bfloat16()
        fine[name] = (base[name].float() + _scaled(deltas[name], DELTA)).bfloat16()
    changed = [name for name in fine if not torch.equal(fine[name], base[name])]
    with tempfile.TemporaryDirectory() as folder:
        report = dtscodec.encode(base, fine, Path(folder) / "pack.safetensors")
        with dtscodec.decode(report.path, base) as decoded:
            near = sum(int(_within_one_ulp(decoded[name], fine[name]).sum()) for name in changed)
            found = {tensor.name: tensor.ranks for tensor in tensor_sizes(decoded.pack)}
    return {
        "bytes": report.pack_bytes,
        "share": report.pack_bytes / report.fine_bytes,
        "ranks": sorted(sum(found[name]) for name in changed),
        "within_one_ulp": near / sum(fine[name].numel() for name in changed),
    }


def _scaled(matrix: Tensor, rms: float) -> Tensor:
    scaled: Tensor = matrix * (rms / matrix.square().mean().sqrt().clamp(min=1e-30))
    return scaled


def _within_one_ulp(ours: Tensor, theirs: Tensor) -> Tensor:
    """Which values differ by one unit in the last place of the fine-tune's or less: bool, of their shape."""
    unit = torch.exp2(torch.frexp(theirs.double()).exponent.double() - ULP_BITS)
    return (ours.double() - theirs.double()).abs() <= unit
