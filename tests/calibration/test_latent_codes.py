"""Latent codes: what they are rounded to, and their gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch

import dtscodec
from dtscodec.calibration.latent_codes import LatentCodes
from dtscodec.decoding.reconstruct import load_tensors
from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.unpack import unpack_delta, unpack_factors

SETTINGS: dict[str, dict[str, Any]] = {
    "matrix": {"target": dtscodec.Rank(6)},
    "vectors": {"target": dtscodec.Rank(6), "preset": dtscodec.Paper("vector")},
    "widths": {"target": dtscodec.MaxError(0.05)},
}


@pytest.fixture(params=SETTINGS)
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> PackedFactors:
    torch.manual_seed(0)
    delta = torch.randn(48, 40) @ torch.diag(torch.arange(40, 0, -1.0) ** 2)
    delta[::5] = 0
    base, fine = {"w": torch.zeros(48, 40)}, {"w": delta}
    dtscodec.encode(base, fine, tmp_path / "pack", dtscodec.EncodeConfig(**SETTINGS[request.param]))
    with dtscodec.open(tmp_path / "pack") as pack:
        found = load_tensors(pack.reader, ["w"], torch.device("cpu"))["w"].blocks[0].payload
    assert isinstance(found, PackedFactors)
    return found


def test_latent_numbers_start_at_the_codes(packed: PackedFactors) -> None:
    before = packed.store.codes.clone()
    codes = LatentCodes([packed])
    assert len(codes.values) == packed.block.rank * sum(packed.coded_shape)
    codes.write()
    assert torch.equal(packed.store.codes, before)


def test_codes_follow_latent_numbers(packed: PackedFactors) -> None:
    codes, before = LatentCodes([packed]), unpack_factors(packed)
    # Reverse each vector: first all left ones of a band, then its right ones.
    begin = 0
    for band in packed.block.bands:
        for count in packed.coded_shape:
            vectors = codes.values[begin : begin + band.rank * count].view(band.rank, count)
            vectors.copy_(vectors.flip(1))
            begin += band.rank * count
    codes.write()
    for old, new in zip(before, unpack_factors(packed), strict=True):
        assert torch.equal(old.flip(1), new)


def test_the_gradient_is_that_of_the_decoded_elements(packed: PackedFactors) -> None:
    codes = LatentCodes([packed])
    part = torch.randn(packed.block.height, packed.columns)[packed.where()]
    left, right = unpack_factors(packed)
    codes.add_gradient(packed, right @ part.T, left @ part)
    start, before = codes.values.clone(), unpack_delta(packed, torch.float32)
    generator = torch.Generator().manual_seed(1)
    for at in torch.randint(0, len(start), (20,), generator=generator).tolist():
        # Take over the value of another element: it is the value of another code.
        codes.values.copy_(start)
        codes.values[at] = -start[at]
        codes.write()
        moved = LatentCodes([packed])
        # Units follow from the codes, so compare with the start by the ratio of decoded elements.
        change = unpack_delta(packed, torch.float32) - before
        found = float((part * change).sum())
        step = _decoded_step(codes, moved, start, at)
        assert found == pytest.approx(float(codes.gradient[at]) * step, rel=2e-3, abs=1e-4)
        codes.values.copy_(start)
        codes.write()


def _decoded_step(codes: LatentCodes, moved: LatentCodes, start: torch.Tensor, at: int) -> float:
    """How far the decoded element went, in the units of `codes`."""
    (ours,) = [one for one in codes._vectors[next(iter(codes._vectors))] if one.span.start <= at < one.span.stop]
    (theirs,) = [one for one in moved._vectors[next(iter(moved._vectors))] if one.span == ours.span]
    row = (at - ours.span.start) // ((ours.span.stop - ours.span.start) // len(ours.units))
    return float(moved.values[at] * theirs.units[row] / ours.units[row] - start[at])
