"""Singular values and vectors by the shorter side's Gram matrix, against the SVD of LAPACK in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtscodec.linalg import spectrum as spectrum_module
from dtscodec.linalg.devices import one_thread
from dtscodec.linalg.spectrum import gram, leading_factors, singular_values
from dtscodec.linalg.svd import canonical_signs, truncated_svd

some = settings(deadline=None, max_examples=50)


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Wide, tall and square, of any rank from 0 on, with spectra from flat to steep, of any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    if draw(st.booleans()):
        columns = rows
    rank = draw(st.integers(0, min(rows, columns)))
    falling = np.arange(1, rank + 1) ** -draw(st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    product = (rng.normal(size=(rows, rank)) * falling) @ rng.normal(size=(rank, columns))
    return torch.from_numpy((product * 10.0 ** draw(st.integers(-6, 3))).astype(np.float32))


def exact(delta: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(delta.double())
    return values


@some
@given(matrices())
def test_singular_values_are_those_of_a_float64_svd(delta: Tensor) -> None:
    expected, found = exact(delta), singular_values(delta)
    # The root of a rounding error: values below 1e-7 of the largest are lost in it.
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-6 * float(expected[0]))
    strong = expected > 1e-2 * expected[0]
    assert torch.allclose(found[strong], expected[strong], rtol=1e-9, atol=0)


@some
@given(matrices())
def test_singular_values_descend_and_are_as_many_as_the_shorter_side(delta: Tensor) -> None:
    found = singular_values(delta)
    assert found.shape == (min(delta.shape),)
    assert (found.diff() <= 0).all()
    assert (found >= 0).all()


@some
@given(matrices())
def test_a_transposed_matrix_has_the_same_singular_values(delta: Tensor) -> None:
    found = singular_values(delta)
    atol = 1e-6 * float(found[0])
    assert torch.allclose(singular_values(delta.T.contiguous()), found, rtol=1e-9, atol=atol)


@some
@given(matrices(), st.data())
def test_leading_factors_leave_no_more_than_the_best_matrix_of_their_rank(delta: Tensor, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, min(delta.shape)))
    factors = leading_factors(delta, rank)
    assert (factors.u.shape, factors.s.shape, factors.v.shape) == (
        (delta.shape[0], rank),
        (rank,),
        (rank, delta.shape[1]),
    )
    values = exact(delta)
    left = torch.linalg.matrix_norm(delta.double() - (factors.u * factors.s).double() @ factors.v.double())
    assert float(left) <= float(values[rank:].norm()) + 1e-5 * float(values.norm())


@some
@given(matrices(), st.data())
def test_leading_factors_have_the_values_of_a_float64_svd_and_its_whole_spectrum(
    delta: Tensor, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(delta.shape)))
    factors, values = leading_factors(delta, rank), exact(delta).float()
    assert torch.allclose(factors.spectrum, values, rtol=1e-6, atol=1e-6 * float(values[0]))
    assert torch.equal(factors.s, factors.spectrum[:rank])


@some
@given(matrices())
def test_vectors_of_values_that_are_not_zero_are_orthonormal(delta: Tensor) -> None:
    factors = leading_factors(delta, min(delta.shape))
    real = factors.s > 1e-3 * factors.s[0]
    for vectors in (factors.u[:, real].T, factors.v[real]):
        assert torch.allclose(vectors @ vectors.T, torch.eye(len(vectors)), atol=1e-3)


@some
@given(matrices())
def test_vectors_of_values_that_are_zero_are_zero_on_the_longer_side_and_finite(delta: Tensor) -> None:
    factors = leading_factors(delta, min(delta.shape))
    longer = factors.v.T if delta.shape[0] < delta.shape[1] else factors.u
    none = factors.s <= 1e-7 * factors.s[0]
    assert not longer[:, none].any()
    assert factors.u.isfinite().all()
    assert factors.v.isfinite().all()


@some
@given(matrices(), st.sampled_from([leading_factors, truncated_svd]))
def test_the_largest_entry_of_each_left_vector_is_positive(delta: Tensor, factorized: object) -> None:
    rank = min(delta.shape)
    u = leading_factors(delta, rank).u if factorized is leading_factors else truncated_svd(delta, rank)[0]
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    assert (largest >= 0).all()


@some
@given(matrices())
def test_canonical_signs_do_not_change_the_product_and_come_out_the_same_from_any_signs(delta: Tensor) -> None:
    u, s, v = torch.linalg.svd(delta, full_matrices=False)
    flips = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], len(s))).float()
    once, again = canonical_signs(u, s, v), canonical_signs(u * flips, s, v * flips[:, None])
    assert torch.equal((once[0] * s) @ once[2], (u * s) @ v)
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one, other)


@some
@given(matrices(), st.data())
def test_leading_factors_are_those_of_the_svd_where_values_lie_apart(delta: Tensor, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, min(delta.shape)))
    values = exact(delta)
    gaps = torch.cat([-values.diff(), values.new_tensor([float(values[-1])])])[:rank]
    before = torch.cat([gaps.new_tensor([float("inf")]), gaps[:-1]])
    apart = torch.minimum(gaps, before) > 0.05 * values[0]
    factors, (u, _, v) = leading_factors(delta, rank), truncated_svd(delta, rank)
    # Where two entries of a vector tie for the largest, its sign is up to rounding.
    cosines = ((factors.u * u).sum(0) * (factors.v * v).sum(1))[apart]
    assert torch.allclose(cosines, torch.ones_like(cosines), atol=1e-3)


@some
@given(st.integers(1, 40), st.integers(1, 40))
def test_a_zero_matrix_has_singular_values_of_zero_and_a_product_of_zero(rows: int, columns: int) -> None:
    delta = torch.zeros(rows, columns)
    factors = leading_factors(delta, min(rows, columns))
    assert not singular_values(delta).any()
    assert not ((factors.u * factors.s) @ factors.v).any()


def test_a_gram_matrix_summed_in_chunks_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = torch.from_numpy(np.random.default_rng(0).standard_normal((100, 7))).float()
    monkeypatch.setattr(spectrum_module, "WIDENED_ELEMENTS", 7 * 9)
    assert torch.allclose(gram(delta), delta.double().T @ delta.double(), rtol=1e-12)
    assert torch.allclose(gram(delta.T), delta.double().T @ delta.double(), rtol=1e-12)


@pytest.mark.parametrize("fails", [False, True])
def test_the_number_of_threads_is_restored_even_after_an_error(fails: bool) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        try:
            with one_thread():
                assert torch.get_num_threads() == 1
                if fails:
                    raise KeyError
        except KeyError:
            pass
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
