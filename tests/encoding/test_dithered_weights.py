"""Weights in bfloat16 with deltas smaller than a unit in the last place: rounding must not undo a decoded delta."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import dtscodec
from dtscodec.encoding.config import Best, EncodeConfig
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.targets import Size
from dtscodec.format.blocks import LowRank
from tests.encoding.test_merged_lora import merged
from tests.support import make_pack

SIDE = 256


def fine_tune(dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A weight, and the same moved by a quarter of a unit of bfloat16 in directions of falling strength."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(SIDE, SIDE, generator=generator)
    u, v = (torch.linalg.qr(torch.randn(SIDE, SIDE, generator=generator))[0] for _ in range(2))
    delta = (u / torch.arange(1, SIDE + 1) ** 0.6) @ v
    base = weight.to(dtype)
    return {"w": base}, {"w": (base.float() + delta * (5e-5 / delta.square().mean().sqrt())).to(dtype)}


def kept(base: dict[str, Tensor], fine: dict[str, Tensor], path: Path, recipe: Recipe) -> tuple[float, bool]:
    """Return the share of a small pack's delta that its decoded weights have, and whether they are dithered."""
    make_pack(base, fine, path, target=Size.parse("4kB"), preset=Best(recipe))
    with dtscodec.decode(path, base) as weights:
        (block,) = weights.pack.index.tensors[0].blocks
        delta, moved = torch.from_numpy(weights.pack.delta("w")), weights["w"].float() - base["w"].float()
        return float((moved * delta).sum() / delta.square().sum()), isinstance(block, LowRank) and block.is_dithered


def test_a_delta_below_a_unit_in_the_last_place_is_kept_by_dithered_rounding(tmp_path: Path) -> None:
    base, fine = fine_tune(torch.bfloat16)
    share, is_dithered = kept(base, fine, tmp_path / "nearest", Recipe(dithers=False))
    assert not is_dithered
    assert share < 0.8
    share, is_dithered = kept(base, fine, tmp_path / "dithered", Recipe())
    assert is_dithered
    assert share == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_only_weights_in_bfloat16_are_dithered(dtype: torch.dtype, tmp_path: Path) -> None:
    assert not kept(*fine_tune(dtype), tmp_path / "pack", Recipe())[1]


def test_a_delta_known_up_to_rounding_noise_is_rounded_to_nearest(tmp_path: Path) -> None:
    base, fine = merged(torch.bfloat16)
    make_pack(base, fine, tmp_path / "pack")
    with dtscodec.decode(tmp_path / "pack", base) as weights:
        blocks = [block for tensor in weights.pack.index.tensors for block in tensor.blocks]
    assert any(isinstance(block, LowRank) for block in blocks)
    assert not any(isinstance(block, LowRank) and block.is_dithered for block in blocks)


def test_an_error_target_measures_weights_rounded_to_nearest(tmp_path: Path) -> None:
    base, fine = fine_tune(torch.bfloat16)
    report = dtscodec.encode(base, fine, tmp_path / "pack", EncodeConfig(dtscodec.MaxError(0.8)))
    with dtscodec.open(report.path) as pack:
        (block,) = pack.index.tensors[0].blocks
    assert isinstance(block, LowRank)
    assert not block.is_dithered
