"""The algebra of factors: pairs of every kind of layer, truncation, norms and coding, against plain matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.adapters.lora_pair import LayerKind, LoraPair
from dtscodec.encoding.presets.one_width import encode_factored
from dtscodec.format.blocks import BaseRows, LowRank, Same
from dtscodec.linalg.devices import product
from dtscodec.linalg.factored_matrix import Factored
from dtscodec.linalg.svd import factored_triplets
from dtscodec.quantize.widths import ALL_BITS, Bits

sides, ranks, seeds = st.integers(1, 24), st.integers(1, 6), st.integers(0, 2**16)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def deltas(draw: st.DrawFn) -> Factored:
    m, n, r, seed = draw(sides), draw(sides), draw(ranks), draw(seeds)
    return Factored(normal(seed, m, r), normal(seed + 1, r, n))


def dense(delta: Factored) -> torch.Tensor:
    return delta.left @ delta.right


@given(deltas())
def test_triplets_are_the_svd_of_the_product(delta: Factored) -> None:
    found = factored_triplets(delta)
    u, s, v = found.u, found.s, found.v
    true = torch.linalg.svdvals(dense(delta))
    assert torch.allclose(s, true[: len(s)])
    assert (true[len(s) :] <= 1e-5 * true[0]).all()
    assert torch.allclose((u * s) @ v, dense(delta), atol=1e-5 * float(true[0]))
    for vectors in (u.T, v):
        assert torch.allclose(vectors @ vectors.T, torch.eye(len(s), dtype=torch.float64))


@given(deltas(), seeds)
def test_norms_differences_and_products_are_those_of_the_product(delta: Factored, seed: int) -> None:
    other = Factored(normal(seed, delta.shape[0], 3), normal(seed + 1, 3, delta.shape[1]))
    assert delta.square() == pytest.approx(float(dense(delta).square().sum()))
    assert delta.minus(other).square() == pytest.approx(float((dense(delta) - dense(other)).square().sum()), rel=1e-6)
    thin = normal(seed, 2, delta.shape[0])
    assert torch.allclose(product(thin, delta), thin @ dense(delta))
    assert torch.equal(dense(delta.T), (delta.right.T @ delta.left.T))


@given(deltas(), ranks, st.sampled_from(["linear", "transposed", "embedding"]))
def test_a_pair_of_enough_rank_is_the_delta_and_one_of_less_the_nearest(
    delta: Factored, rank: int, kind: LayerKind
) -> None:
    pair = LoraPair.from_delta(delta, kind, delta.shape, rank)
    assert 1 <= pair.rank <= min(rank, *delta.shape)
    padded = pair.padded(rank + 2)
    assert padded.rank == rank + 2
    assert torch.allclose(dense(padded.to_delta(1.0, False)), dense(pair.to_delta(1.0, False)))
    assert pair.is_embedding == (kind == "embedding")
    lost = (dense(pair.to_delta(1.0, kind == "transposed")) - dense(delta)).norm()
    beyond = torch.linalg.svdvals(dense(delta))[rank:].norm()
    assert float(lost) == pytest.approx(float(beyond), abs=1e-5 * float(dense(delta).norm()))
    assert pair.a.norm() == pytest.approx(float(pair.b.norm()))  # balanced


@given(deltas(), st.integers(1, 3))
def test_a_pair_of_a_convolution_has_its_shape(delta: Factored, width: int) -> None:
    rows, columns = delta.shape
    shape = (rows, columns, width)
    wide = Factored(delta.left, delta.right.repeat_interleave(width, 1))
    pair = LoraPair.from_delta(wide, "convolution", shape).padded(6)
    assert (pair.a.shape, pair.b.shape) == ((6, columns, width), (rows, 6, 1))
    assert pair.weight_shape(False) == pair.weight_shape(True) == shape
    assert torch.allclose(dense(pair.to_delta(1.0, False)), dense(wide), atol=1e-5 * float(dense(wide).norm()))


@given(deltas(), st.sampled_from(ALL_BITS))
def test_the_error_of_coding_is_the_error_of_what_is_decoded(delta: Factored, bits: Bits) -> None:
    coded = encode_factored(delta, BaseRows("w", 0), bits)
    assert isinstance(coded.block, LowRank)
    ours = coded.block.split(delta.shape[1], coded.streams).delta().place(*delta.shape).astype(np.float64)
    true = dense(delta).numpy()
    norm = float(np.square(true).sum())
    assert coded.delta_energy == pytest.approx(norm)
    assert coded.error_energy == pytest.approx(float(np.square(ours - true).sum()), rel=0.01, abs=1e-9 * norm)
    assert float(coded.streams.numbers[0]) == pytest.approx(float(np.linalg.norm(ours)), rel=0.01)
    if bits == 16:
        assert coded.error_energy < 1e-6 * norm


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30])
def test_a_delta_of_zero_takes_no_bytes_and_a_tiny_one_is_coded(size: float) -> None:
    delta = Factored(torch.full((4, 1), size, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))
    coded = encode_factored(delta, BaseRows("w", 0), 8)
    assert isinstance(coded.block, LowRank if size == 1e-30 else (Same, LowRank))


def test_factors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected factors"):
        Factored(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="expected A"):
        LoraPair(torch.zeros(2, 3), torch.zeros(3, 3))
