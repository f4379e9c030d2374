"""An error that is asked for: the pack keeps to it, and is no larger than it must be."""

import math
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dtscodec
from dtscodec import EncodeConfig
from dtscodec.decoding.compare import Closeness
from dtscodec.encoding.targets import Size
from dtscodec.packs.byte_counts import tensor_sizes
from tests.support import make_pack

Tensors = dict[str, Tensor]

MATRICES = {"a": (64, 96), "b": (96, 48), "c": (40, 128)}


def power_law(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A matrix whose singular values fall as those of fine-tunes do."""
    rank = min(shape)
    left, right = (torch.linalg.qr(torch.randn(side, rank, generator=generator)).Q for side in shape)
    matrix: Tensor = left * torch.arange(1, rank + 1).pow(-0.8) @ right.T
    return matrix


@cache
def checkpoints(dtype: torch.dtype = torch.float32) -> tuple[Tensors, Tensors]:
    """A base and a fine-tune that has a counterpart for all it holds. Nobody may change them."""
    generator = torch.Generator().manual_seed(2)
    base = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in MATRICES.items()}
    base |= {"norm": torch.randn(96, generator=generator), "frozen": torch.randn(32, 32, generator=generator)}
    fine = dict(base)
    for (name, shape), scale in zip(MATRICES.items(), (0.3, 0.15, 0.2), strict=True):
        fine[name] = base[name] + scale * power_law(shape, generator)
    fine["norm"] = base["norm"] + 0.01 * torch.randn(96, generator=generator)
    return cast(base, dtype), cast(fine, dtype)


def cast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def compared(pack: Path, base: Tensors, fine: Tensors) -> Closeness:
    return dtscodec.compare(pack, fine, base).total


def whole_error(pack: Path, base: Tensors, fine: Tensors) -> float:
    """Relative error over all tensors, also those that the pack leaves as they are or holds exactly."""
    with dtscodec.decode(pack, base) as decoded:
        lost = distance(decoded, fine)
    return lost / distance(base, fine)


def distance(a: Mapping[str, Tensor], b: Tensors) -> float:
    return math.hypot(*((a[name].double() - b[name].double()).norm().item() for name in b))


@settings(deadline=None, max_examples=8)
@given(st.floats(0.02, 0.98))
def test_the_decoded_delta_has_at_most_the_error_asked_for(error: float) -> None:
    base, fine = checkpoints()
    with tempfile.TemporaryDirectory() as folder:
        report = make_pack(base, fine, Path(folder) / "pack", target=dtscodec.MaxError(error))
        assert report.relative_error <= error
        assert whole_error(report.path, base, fine) <= error * (1 + 1e-5)  # float32 arithmetic
        assert (compared(report.path, base, fine).relative_error or 0) <= error * (1 + 1e-5)


def test_the_reported_error_is_what_compare_measures(tmp_path: Path) -> None:
    base, fine = checkpoints()
    report = dtscodec.encode(base, fine, tmp_path / "pack", EncodeConfig(target=dtscodec.MaxError(0.4)))
    assert report.relative_error == pytest.approx(compared(report.path, base, fine).relative_error, rel=1e-5)


def test_most_of_the_error_asked_for_is_used(tmp_path: Path) -> None:
    base, fine = checkpoints()
    for error in (0.7, 0.4, 0.1):
        assert (
            dtscodec.encode(
                base, fine, tmp_path / str(error), EncodeConfig(target=dtscodec.MaxError(error))
            ).relative_error
            > 0.9 * error
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_larger_error_makes_a_smaller_pack(dtype: torch.dtype, tmp_path: Path) -> None:
    errors = [0.01, 0.2, 0.5, 0.8]
    sizes = [
        dtscodec.encode(
            *checkpoints(dtype), tmp_path / str(error), EncodeConfig(target=dtscodec.MaxError(error))
        ).pack_bytes
        for error in errors
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_an_error_makes_no_larger_a_pack_than_a_size_does(tmp_path: Path) -> None:
    """What the one preset reaches in so many bytes the other reaches in about as many."""
    base, fine = checkpoints()
    by_error = dtscodec.encode(base, fine, tmp_path / "a", EncodeConfig(target=dtscodec.MaxError(0.3)))
    larger = EncodeConfig(target=Size.parse(f"{int(1.1 * by_error.pack_bytes)}B"))
    assert by_error.relative_error < 1.1 * dtscodec.encode(base, fine, tmp_path / "b", larger).relative_error


@pytest.mark.parametrize("error", [0.8, 0.3, 0.05, 0.002])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_rounding_explains_does_not_count(dtype: torch.dtype, error: float, tmp_path: Path) -> None:
    base, fine = checkpoints(dtype)
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.MaxError(error))
    assert report.relative_error <= error
    # Weights are a thousand times as large as the last digit of bfloat16 in them; deltas are smaller than weights.
    assert whole_error(report.path, base, fine) <= error + 0.02


@pytest.mark.parametrize("error", [1e-3, 1e-4, 1e-6, 1e-300])
def test_a_tiny_error_is_met_too(error: float, tmp_path: Path) -> None:
    base, fine = checkpoints()
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.MaxError(error))
    assert report.relative_error <= error
    assert whole_error(report.path, base, fine) <= error * (1 + 1e-3)
    assert report.pack_bytes < 1.02 * report.fine_bytes


@pytest.mark.parametrize("error", [1e-4, 0.5, 0.99])
def test_an_unchanged_fine_tune_has_no_error(error: float, tmp_path: Path) -> None:
    base, _ = checkpoints()
    report = make_pack(base, base, tmp_path / "pack", target=dtscodec.MaxError(error))
    assert (report.relative_error, report.left_out) == (0, 0)
    with dtscodec.open(report.path) as pack:
        assert {tensor.kind for tensor in tensor_sizes(pack)} == {"same"}


@pytest.mark.parametrize("error", [0.9, 0.7, 0.4, 0.1, 0.01])
def test_a_decoded_delta_is_not_scaled_up(error: float, tmp_path: Path) -> None:
    base, fine = checkpoints()
    report = dtscodec.encode(base, fine, tmp_path / "pack", EncodeConfig(target=dtscodec.MaxError(error)))
    ratio = compared(report.path, base, fine).norm_ratio
    assert ratio is not None
    # The error of a least-squares fit is orthogonal to the fit.
    assert ratio == pytest.approx((1 - report.relative_error**2) ** 0.5, abs=0.01)
    assert ratio <= 1.001


@pytest.mark.parametrize(
    ("settings", "scaled"), [({"target": dtscodec.MaxError(0.6)}, False), ({"target": Size.parse("1300B")}, True)]
)
def test_only_where_a_size_is_asked_for_is_a_delta_scaled_up(
    settings: dict[str, Any], scaled: bool, tmp_path: Path
) -> None:
    base, fine = checkpoints()
    report = dtscodec.encode(base, fine, tmp_path / "pack", EncodeConfig(**settings))
    ratio = compared(report.path, base, fine).norm_ratio
    assert ratio is not None
    fitted = (1 - min(1.0, report.relative_error) ** 2) ** 0.5
    assert (ratio > 1.05 * fitted) == scaled
