"""Devices: products of large matrices on an accelerator, and unknown devices."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec import EncodeConfig, encode
from dtscodec.errors import BackendError
from dtscodec.linalg.devices import product, usable_device
from dtscodec.linalg.spectrum import leading_factors, singular_values

ACCELERATOR = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
DEVICES = [
    "cpu",
    pytest.param(
        str(ACCELERATOR), marks=pytest.mark.skipif(ACCELERATOR is None, reason="torch finds no accelerator here")
    ),
]


@pytest.fixture(scope="module")
def delta() -> torch.Tensor:
    """A matrix that is large enough for subspace iteration, with a falling spectrum."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(800, 40, generator=generator) for _ in range(2))
    return (left * torch.arange(1, 41) ** -0.5) @ right.T + 0.1 * torch.randn(800, 800, generator=generator)


@pytest.mark.parametrize("device", DEVICES)
def test_products_are_on_the_cpu(device: str, delta: torch.Tensor) -> None:
    block = torch.ones(800, 3)
    result = product(delta.to(device), block)
    assert result.device.type == "cpu"
    torch.testing.assert_close(result, delta @ block, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_finds_the_same_factors(device: str, delta: torch.Tensor) -> None:
    ours, here = leading_factors(delta, 8, device), leading_factors(delta, 8)
    torch.testing.assert_close(ours.s, here.s, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.u.abs(), here.u.abs(), rtol=0, atol=1e-2)
    torch.testing.assert_close(singular_values(delta, 8, device=device)[:8], here.s.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_encodes_to_the_same_error(device: str, delta: torch.Tensor, tmp_path: Path) -> None:
    base, fine = {"w": torch.zeros_like(delta)}, {"w": delta}
    errors = [
        encode(base, fine, tmp_path / str(i), EncodeConfig(target=dtscodec.Rank(16), device=d)).relative_error
        for i, d in enumerate(("cpu", device))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.005)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "nonsense"])
def test_an_unknown_device_is_refused_before_any_work(device: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="device"):
        encode({"w": torch.zeros(2)}, {"w": torch.ones(2)}, tmp_path / "x", EncodeConfig(device=device))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BackendError):
        usable_device(device)
