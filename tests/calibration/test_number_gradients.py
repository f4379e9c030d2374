"""Gradients of levels and scales against finite differences."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.calibration.weight_gradients import WeightGradient
from dtscodec.decoding.reconstruct import load_tensors
from dtscodec.kernels.packed import Packed
from dtscodec.kernels.unpack import unpack_delta


def delta_of(packed: Packed) -> torch.Tensor:
    """The block's delta, zero where nothing is coded, by what decoding does."""
    whole = torch.zeros(packed.block.height, packed.columns)
    whole[packed.where()] = unpack_delta(packed, torch.float32)
    return whole


def base_and_fine(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    shape = (48,) if kind == "values" else (48, 40)
    delta = torch.randn(shape)
    if kind == "rows":
        delta[::3] = 0
        delta[:, ::4] = 0
    return {"w": torch.zeros(shape)}, {"w": delta}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("matrix", {"target": dtscodec.Rank(6)}),
        ("rows", {"target": dtscodec.Rank(6)}),
        ("values", {"target": dtscodec.Rank(6)}),
        ("vectors", {"target": dtscodec.Rank(6), "preset": dtscodec.Paper("vector")}),
        ("widths", {"target": dtscodec.MaxError(0.05)}),
    ],
)
def test_each_number_has_the_derivative_of_the_loss(kind: str, settings: dict[str, object], tmp_path: Path) -> None:
    base, fine = base_and_fine(kind)
    out = tmp_path / "pack"
    dtscodec.encode(base, fine, out, dtscodec.EncodeConfig(**settings))  # type: ignore[arg-type]
    with dtscodec.open(out) as pack:
        loaded = load_tensors(pack.reader, ["w"], torch.device("cpu"))["w"]
    packed = loaded.blocks[0].payload
    assert isinstance(packed, Packed)
    numbers = packed.store.numbers
    gradient = torch.randn(packed.block.height, packed.columns)
    found = torch.zeros_like(numbers)
    WeightGradient(loaded, found, None).add(gradient)
    for at in range(len(numbers)):
        kept, step = float(numbers[at]), 1e-2 * max(1.0, abs(float(numbers[at])))
        sides = []
        for sign in (1, -1):
            numbers[at] = kept + sign * step
            sides.append(float((delta_of(packed).double() * gradient.double()).sum()))
        numbers[at] = kept
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(float(found[at]), rel=1e-2, abs=2e-2)
