"""A LoRA that was merged is found again: a delta of exactly a low rank, under whatever rounding left in it."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dtscodec
from dtscodec import EncodeConfig
from dtscodec.encoding.config import DEFAULT_SIZE
from dtscodec.encoding.targets import Size
from dtscodec.packs.byte_counts import TensorSize, tensor_sizes
from tests.support import make_pack, ulp

Tensors = dict[str, Tensor]

SIDE = 384
RANK = 16
RMS = 1e-3
PARTS = "qkvo"
CHANGED = {f"layers.{i}.{part}" for i in range(2) for part in "qv"}
CODES = {torch.float16: "F16", torch.bfloat16: "BF16"}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_rms(matrix: Tensor, rms: float = RMS) -> Tensor:
    return matrix * (rms / matrix.square().mean().sqrt())


@cache
def weights() -> Tensors:
    """Attention of two layers, as initialized: float32. Nobody may change it."""
    names = [f"layers.{i}.{part}" for i in range(2) for part in PARTS]
    return {name: 0.02 * normal(SIDE, SIDE, seed=seed) for seed, name in enumerate(names)}


def merged(dtype: torch.dtype, rank: int = RANK) -> tuple[Tensors, Tensors]:
    """A base in a dtype, and the same with a LoRA merged into some of it: added in float32, and rounded."""
    base = {name: weight.to(dtype) for name, weight in weights().items()}
    fine = dict(base)
    for seed, name in enumerate(sorted(CHANGED)):
        delta = with_rms(normal(SIDE, rank, seed=100 + seed) @ normal(rank, SIDE, seed=200 + seed))
        fine[name] = (base[name].float() + delta).to(dtype)
    return base, fine


def inventory(report: dtscodec.EncodeReport) -> dict[str, TensorSize]:
    with dtscodec.open(report.path) as pack:
        return {tensor.name: tensor for tensor in tensor_sizes(pack)}


def default_bytes(tensors: Tensors) -> int:
    count = sum(tensor.numel() for tensor in tensors.values())
    return DEFAULT_SIZE.in_bytes(0, count)


def check_is_found(report: dtscodec.EncodeReport, rank: int = RANK) -> None:
    for name, tensor in inventory(report).items():
        assert (tensor.kind, tensor.ranks) == (("lowrank", (rank,)) if name in CHANGED else ("same", ())), name


def test_an_error_is_kept_with_exactly_the_loras_components(tmp_path: Path) -> None:
    base, fine = merged(torch.float32)
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.MaxError(0.02))
    check_is_found(report)
    measured = dtscodec.compare(report.path, fine, base).total.relative_error
    assert measured is not None
    assert 0.01 < measured <= 0.02
    assert report.relative_error <= 0.02


@pytest.mark.parametrize("rank", [4, 16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_by_default_a_lora_is_stored_with_its_rank_and_whole(dtype: torch.dtype, rank: int, tmp_path: Path) -> None:
    base, fine = merged(dtype, rank)
    report = dtscodec.encode(base, fine, tmp_path / "pack")
    check_is_found(report, rank)
    assert report.left_out == 0
    # Known only as well as the noise that is subtracted: its estimate is within about 1 % of the delta's square.
    assert report.relative_error < (1e-3 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_by_default_nearly_all_weights_of_a_merged_lora_come_back_to_the_last_digit(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    base, fine = merged(dtype)
    report = make_pack(base, fine, tmp_path / "pack")
    with dtscodec.decode(report.path, base) as decoded:
        for name in CHANGED:
            ours, theirs = (tensor.double().numpy() for tensor in (decoded[name], fine[name]))
            assert (abs(ours - theirs) <= ulp(theirs, CODES[dtype])).mean() > 0.95
            assert abs(ours - theirs).max() < 0.02 * abs(theirs).max()


@pytest.mark.parametrize("amount", ["2kB", "5kB", "8kB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_size_that_is_asked_for_holds_for_a_lora_too(dtype: torch.dtype, amount: str, tmp_path: Path) -> None:
    base, fine = merged(dtype)
    asked = Size.parse(amount)
    report = make_pack(base, fine, tmp_path / "pack", target=asked)
    component = 2 * SIDE // 4 + 2
    assert asked.amount - component < report.pack_bytes <= asked.amount
    assert all(max(tensor.ranks, default=0) < RANK for tensor in inventory(report).values())


# What is no LoRA


def rerounded(dtype: torch.dtype) -> tuple[Tensors, Tensors]:
    """Weights that went through a dtype and back: nothing was trained."""
    return weights(), {name: weight.to(dtype).float() for name, weight in weights().items()}


def jittered(dtype: torch.dtype) -> tuple[Tensors, Tensors]:
    """Weights in a dtype, and the same after a change below their last digit, rounded again."""
    base = {name: weight.to(dtype) for name, weight in weights().items()}
    small = torch.finfo(dtype).eps / 2
    fine = {
        name: (weight.float() * (1 + small * normal(SIDE, SIDE, seed=seed))).to(dtype)
        for seed, (name, weight) in enumerate(base.items())
    }
    return base, fine


def full_rank(dtype: torch.dtype) -> tuple[Tensors, Tensors]:
    base = {name: weight.to(dtype) for name, weight in weights().items()}
    fine = {
        name: (weight.float() + 3e-4 * normal(SIDE, SIDE, seed=seed)).to(dtype)
        for seed, (name, weight) in enumerate(base.items())
    }
    return base, fine


OTHERS: dict[str, Any] = {
    "bfloat16 and back": lambda: rerounded(torch.bfloat16),
    "float16 and back": lambda: rerounded(torch.float16),
    "bfloat16 rounded again": lambda: jittered(torch.bfloat16),
    "float16 rounded again": lambda: jittered(torch.float16),
    "full rank in float32": lambda: full_rank(torch.float32),
    "full rank in bfloat16": lambda: full_rank(torch.bfloat16),
    "full rank in float16": lambda: full_rank(torch.float16),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_change_of_full_rank_or_of_rounding_alone_gets_the_default_size_and_is_not_blown_up(
    what: str, tmp_path: Path
) -> None:
    base, fine = OTHERS[what]()
    report = dtscodec.encode(base, fine, tmp_path / "pack")
    assert report.pack_bytes <= default_bytes(fine)
    ratio = dtscodec.compare(report.path, fine, base).total.norm_ratio
    assert ratio is not None
    assert ratio < 1


def test_a_checkpoint_that_was_only_rounded_to_half_precision_is_the_base(tmp_path: Path) -> None:
    fine = {name: weight.bfloat16() for name, weight in weights().items()}
    report = make_pack(weights(), fine, tmp_path / "pack")
    assert (report.relative_error, report.left_out) == (0, 0)
    assert {tensor.kind for tensor in inventory(report).values()} == {"same"}


def test_what_a_lora_leaves_alone_is_same_also_if_the_fine_tune_was_rounded(tmp_path: Path) -> None:
    _, fine = merged(torch.float32)
    report = make_pack(weights(), {name: weight.bfloat16() for name, weight in fine.items()}, tmp_path / "pack")
    check_is_found(report)


def test_a_lora_beside_a_change_of_full_rank_takes_its_own_bytes_only(tmp_path: Path) -> None:
    base, fine = merged(torch.float32)
    lora = dtscodec.encode(base, fine, tmp_path / "lora").pack_bytes
    other = "layers.0.k"
    fine[other] = base[other] + 3e-4 * normal(SIDE, SIDE, seed=9)
    report = dtscodec.encode(base, fine, tmp_path / "both", EncodeConfig())
    assert report.pack_bytes <= lora + default_bytes(fine)
