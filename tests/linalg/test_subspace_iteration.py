"""Leading singular triplets by subspace iteration, and extrapolated spectra, against the SVD of LAPACK."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dtscodec
from dtscodec.linalg import spectrum as spectrum_module
from dtscodec.linalg.chunks import squared_norm
from dtscodec.linalg.spectrum import extrapolate_spectrum, leading_factors, singular_values
from dtscodec.linalg.subspace_iteration import leading_triplets, orthonormal
from tests.encoding.fine_tunes import Packed, Pair, low_rank, normal, power_law

some = settings(deadline=None, max_examples=25)
few = settings(deadline=None, max_examples=10)
generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
sides = st.integers(40, 160)
deltas = st.builds(power_law, generators, sides, sides, st.sampled_from([0.3, 0.5, 0.8, 1.2]))


def products(u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    return (u.double() * s) @ v.double()


@some
@given(deltas, st.integers(1, 20))
def test_the_error_is_hardly_above_that_of_the_truncated_svd(delta: Tensor, count: int) -> None:
    left = squared_norm(delta.double() - products(*leading_triplets(delta, count))) ** 0.5
    least = float(torch.linalg.svdvals(delta.double())[count:].norm())
    assert least * (1 - 1e-6) <= left <= least * 1.01


@some
@given(deltas, st.integers(1, 20))
def test_the_squares_of_the_values_are_what_the_triplets_take_of_the_squared_norm(delta: Tensor, count: int) -> None:
    u, s, v = leading_triplets(delta, count)
    left = squared_norm(delta.double() - products(u, s, v))
    assert left == pytest.approx(squared_norm(delta) - float(s.square().sum()), rel=1e-4)


@some
@given(deltas, st.integers(1, 20))
def test_values_descend_and_are_never_above_the_true_ones(delta: Tensor, count: int) -> None:
    s = leading_triplets(delta, count)[1]
    assert (s.diff() <= 0).all()
    assert (s <= torch.linalg.svdvals(delta.double())[:count] * (1 + 1e-6)).all()


@some
@given(deltas, st.integers(1, 20))
def test_vectors_are_orthonormal(delta: Tensor, count: int) -> None:
    u, _, v = leading_triplets(delta, count)
    for vectors in (u.T, v):
        assert torch.allclose(vectors @ vectors.T, torch.eye(count), atol=1e-4)


@some
@given(generators, sides, sides, st.integers(0, 12), st.integers(-25, 20))
def test_a_matrix_of_low_rank_is_found_in_full_and_no_more(
    rng: np.random.Generator, rows: int, columns: int, rank: int, exponent: int
) -> None:
    delta = low_rank(rng, rows, columns, rank) * 10.0**exponent if rank else torch.zeros(rows, columns)
    u, s, v = leading_triplets(delta, 15)
    assert (u.shape, s.shape, v.shape) == ((rows, 15), (15,), (15, columns))
    assert (s[rank:] <= 1e-5 * s[0]).all()
    assert torch.allclose(products(u, s, v), delta.double(), rtol=0, atol=1e-5 * float(delta.abs().max()))


@few
@given(deltas, st.integers(1, 20))
def test_the_same_matrix_has_the_same_triplets_to_the_last_bit(delta: Tensor, count: int) -> None:
    for one, other in zip(leading_triplets(delta, count), leading_triplets(delta.clone(), count), strict=True):
        assert torch.equal(one, other)


@few
@given(deltas, st.integers(1, 12))
def test_another_random_block_leaves_nearly_as_much(delta: Tensor, count: int) -> None:
    left = [squared_norm(delta - products(*leading_triplets(delta, count, seed)).float()) for seed in (0, 1)]
    assert left[0] == pytest.approx(left[1], rel=0.02)


@some
@given(deltas)
def test_orthonormal_columns_span_the_block(delta: Tensor) -> None:
    block = delta[:, :10]
    basis = orthonormal(block)
    assert torch.allclose(basis.T @ basis, torch.eye(10), atol=1e-5)
    assert torch.allclose(basis @ (basis.T @ block), block, rtol=0, atol=1e-5 * float(block.norm()))


# The rest of a spectrum

spectra = st.builds(
    lambda count, power: torch.arange(1, count + 1, dtype=torch.float64) ** -power,
    st.integers(2, 300),
    st.sampled_from([0.0, 0.2, 0.5, 1.0, 3.0]),
)


@some
@given(spectra, st.data())
def test_a_power_law_is_extrapolated_exactly(spectrum: Tensor, data: st.DataObject) -> None:
    known = data.draw(st.integers(1, len(spectrum)))
    filled = extrapolate_spectrum(spectrum[:known], float(spectrum.square().sum()), len(spectrum))
    assert torch.allclose(filled, spectrum, rtol=1e-4, atol=1e-9)


@some
@given(deltas, st.integers(1, 30))
def test_an_extrapolated_spectrum_descends_and_has_the_known_values_and_the_norm(delta: Tensor, known: int) -> None:
    true = torch.linalg.svdvals(delta.double())
    filled = extrapolate_spectrum(true[:known], squared_norm(delta), len(true))
    assert torch.equal(filled[:known], true[:known])
    assert (filled.diff() <= 0).all()
    assert float(filled.square().sum()) == pytest.approx(squared_norm(delta), rel=1e-6)


# Which way is taken


@pytest.fixture
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subspace iteration for small matrices too, which tests can afford to decompose."""
    monkeypatch.setattr(spectrum_module, "SMALL_SIDE", 32)


@pytest.mark.usefixtures("_early")
@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_few_factors_of_a_large_matrix_are_close_to_the_exact_ones(shape: tuple[int, int]) -> None:
    delta = power_law(np.random.default_rng(0), *shape, 0.8)
    factors = leading_factors(delta, 8)
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    assert torch.allclose(factors.s.double(), s[:8], rtol=1e-3)
    assert torch.allclose(factors.spectrum.double(), s, rtol=0.1)
    assert float((factors.u.double() * u[:, :8]).sum(0).abs().min()) > 0.99
    assert float((factors.v.double() * v[:8]).sum(1).abs().min()) > 0.99
    assert (factors.u.gather(0, factors.u.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.usefixtures("_early")
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_enough_values_are_computed_to_hold_the_requested_share(share: float) -> None:
    delta = power_law(np.random.default_rng(0), 300, 200, 0.5)
    true, found = torch.linalg.svdvals(delta.double()), singular_values(delta, 4, share)
    needed = int((true.square().cumsum(0) < share * true.square().sum()).sum()) + 1
    assert torch.allclose(found[:needed], true[:needed], rtol=0.03)
    assert float(found.square().sum()) == pytest.approx(float(true.square().sum()), rel=1e-6)


def test_all_values_of_a_small_matrix_are_exact() -> None:
    delta = power_law(np.random.default_rng(0), 300, 200, 0.5)
    assert torch.equal(singular_values(delta, 4), singular_values(delta))


# Whole packs


COMPONENT = (1000 + 900) // 4 + 2
"""Bytes, two bits an element."""


@cache
def wide() -> Pair:
    """Matrices large enough for the default of the encoder."""
    rng = np.random.default_rng(0)
    base = {name: normal(rng, 1000, 900) for name in "ab"}
    deltas = {"a": power_law(rng, 1000, 900, 0.4), "b": power_law(rng, 1000, 900, 0.8)}
    return Pair(base, {name: tensor + deltas[name] for name, tensor in base.items()})


def test_a_pack_fills_its_size_and_is_as_near_as_by_exact_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Packed(wide(), size="0.4%")
    monkeypatch.setattr(spectrum_module, "SMALL_SIDE", 10_000)
    exact = Packed(wide(), size="0.4%")
    for packed in (found, exact):
        assert 0 <= wide().in_bytes("0.4%") - len(packed.file) < COMPONENT
    assert found.report.relative_error <= 1.005 * exact.report.relative_error
    assert found.file != exact.file


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.5, 0.8])
def test_an_error_target_is_met_with_hardly_more_bytes(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Packed(wide(), target=dtscodec.MaxError(error))
    monkeypatch.setattr(spectrum_module, "SMALL_SIDE", 10_000)
    exact = Packed(wide(), target=dtscodec.MaxError(error))
    assert found.report.relative_error <= error
    assert len(found.file) <= 1.03 * len(exact.file)


def test_the_file_does_not_depend_on_how_many_threads_torch_has() -> None:
    threads = torch.get_num_threads()
    try:
        files = []
        for count in (1, 2):
            torch.set_num_threads(count)
            files.append(Packed(wide(), size="0.4%").file)
    finally:
        torch.set_num_threads(threads)
    assert files[0] == files[1]
