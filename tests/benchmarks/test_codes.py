"""benchmarks.codes: the codes keep what they promise, and count what they take."""

import shutil

import numpy as np
import pytest
import torch

from benchmarks.codes import report
from benchmarks.codes.codes import ByteCode, Code, EntropyCode, FormatCode, FourGroups
from benchmarks.codes.components import Offer, encode
from benchmarks.codes.decode_time import window_lookup
from benchmarks.codes.errors import Sample, error_points
from benchmarks.codes.matrices import changed_matrices
from benchmarks.codes.offers import OFFERS, TODAY
from benchmarks.codes.points import Point
from benchmarks.codes.trellis import Trellis

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
BITS = 2


def small_trellis(memory: int) -> Trellis:
    return Trellis(memory, BITS, np.random.default_rng(0).standard_normal((1 << memory, 1)).astype(np.float32))


@needs_compiler
def test_states_of_a_trellis_form_a_ring_of_bits() -> None:
    trellis = small_trellis(8)
    states = trellis.search(np.random.default_rng(1).standard_normal(100).astype(np.float32)).astype(np.int64)
    kept = (1 << (trellis.memory - BITS)) - 1
    assert np.array_equal(states >> BITS, np.roll(states, 1) & kept)


@needs_compiler
def test_a_search_finds_what_a_trellis_can_represent() -> None:
    trellis = small_trellis(6)
    bits = np.random.default_rng(2).integers(0, 1 << BITS, 400)
    states = np.zeros(len(bits), np.uint16)
    for back in range(3):
        states |= (np.roll(bits, back) << (BITS * back)).astype(np.uint16)
    vector = trellis.values(states)
    assert np.array_equal(trellis.values(trellis.search(vector)), vector)


@needs_compiler
@pytest.mark.parametrize("memory", [8, 10])
def test_one_lookup_decodes_the_elements_of_a_byte(memory: int) -> None:
    trellis = small_trellis(memory)
    states = trellis.search(np.random.default_rng(3).standard_normal(64).astype(np.float32))
    shifts = 6 - 2 * np.arange(4)
    packed = ((states & 3).reshape(1, -1, 4) << shifts).sum(-1).astype(np.uint8)
    windows = np.arange(1 << (memory + 6))[:, None] >> shifts & ((1 << memory) - 1)
    table = trellis.table[windows, 0]
    assert np.array_equal(window_lookup(packed, table)().reshape(-1), trellis.values(states))


@pytest.mark.parametrize("code", [ByteCode.of(2), EntropyCode.of(1.2, 0.123)], ids=lambda code: code.name)
def test_codes_have_the_distortion_that_they_state(code: Code) -> None:
    vector = torch.randn(20_000, generator=torch.Generator().manual_seed(4))
    error = float((vector - code.quantize(vector).values).square().mean())
    assert error == pytest.approx(code.distortion, rel=0.05)


def test_an_entropy_code_counts_about_the_bits_that_it_states() -> None:
    code = EntropyCode.of(1.2, 0.123)
    vector = torch.randn(20_000, generator=torch.Generator().manual_seed(5))
    assert 8 * code.size(code.quantize(vector)) / len(vector) == pytest.approx(code.bits, rel=0.02)


def sample() -> Sample:
    random = torch.Generator().manual_seed(6)
    base = torch.randn(64, 96, generator=random)
    change = torch.randn(64, 20, generator=random) @ torch.randn(20, 96, generator=random)
    fine = base + 0.01 * change
    return Sample(changed_matrices({"w": fine}, {"w": base}, ""), fine.nbytes)


def test_an_encode_meets_its_budget() -> None:
    offer = Offer("test", [FourGroups("four", 2, 0.1168), FormatCode.of(4)])
    coded = encode(sample().matrices, offer, 500, rounds=2)
    assert 500 - 50 <= coded.size <= 500
    assert coded.error < 0.7


def test_errors_are_told_as_bytes_for_the_same_error() -> None:
    today, better = error_points("test", sample(), "3%", [TODAY, "vectors of 4, 2 bits"])
    assert today.bytes_ratio == pytest.approx(1)
    assert better.bytes_ratio < 1


def test_kl_is_related_to_that_of_todays_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "OFFERS", {name: OFFERS[name] for name in (TODAY, "sign, 1 bit")})
    points = [
        Point("test", "task", "1%", offer, 100, error, kl, 0.9, {}, 0.0)
        for offer, error, kl in ((TODAY, 0.5, 0.02), ("sign, 1 bit", 0.25, 0.01))
    ]
    assert "| sign, 1 bit | 0.01000, 0.50, 0.250 |" in report.codes_page([], points, {})
