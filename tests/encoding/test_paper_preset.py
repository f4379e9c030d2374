"""`--preset paper` is DTS as published."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dtscodec
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.presets.paper import quantize_factors
from dtscodec.format.blocks import LowRank, Raw, Same, Values
from dtscodec.linalg.svd import canonical_signs, truncated_svd
from dtscodec.quantize.scalar import dequantize
from tests.encoding.published import published_matrix, published_quantizer
from tests.support import make_pack


def paper_pack(base: Source, fine: Source, out: Path, **settings: Any) -> dtscodec.EncodeReport:
    return make_pack(base, fine, out, **{"preset": dtscodec.Paper(), **settings})


def power_law(rows: int, columns: int, exponent: float = 0.7, seed: int = 0) -> torch.Tensor:
    """A matrix with singular values i^-exponent."""
    random = torch.Generator().manual_seed(seed)
    short = min(rows, columns)
    u = torch.linalg.qr(torch.randn(rows, short, generator=random))[0]
    v = torch.linalg.qr(torch.randn(columns, short, generator=random))[0]
    matrix: torch.Tensor = (u * torch.arange(1, short + 1) ** -exponent) @ v.T * 0.05
    return matrix


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50), (200, 8)])
def test_given_the_same_factors_quantizer_and_product_are_the_published_ones(shape: tuple[int, int]) -> None:
    u, s, v = truncated_svd(power_law(*shape), 5)
    band = quantize_factors(u, s, v, per_vector=False)
    ours = (dequantize(band.u).T * band.scales) @ dequantize(band.v)
    theirs = published_quantizer(u.numpy()) * s.numpy() @ published_quantizer(v.numpy())
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(300, 200), (120, 400), (256, 256)])
@pytest.mark.parametrize("density", [0.1, 0.3])
def test_from_the_delta_the_relative_error_is_the_published_one_within_half_a_percent(
    tmp_path: Path, shape: tuple[int, int], density: float
) -> None:
    base, delta = torch.randn(shape), power_law(*shape)
    paper_pack({"w": base}, {"w": base + delta}, tmp_path / "p", target=dtscodec.RankShare(density))
    true = (base + delta - base).double().numpy()
    with dtscodec.open(tmp_path / "p") as pack:
        ours = np.linalg.norm(pack.delta("w") - true)
    theirs = np.linalg.norm(published_matrix(true, density) - true)
    assert ours == pytest.approx(theirs, rel=0.005)


@given(st.floats(0.01, 1.0), st.integers(1, 300), st.integers(1, 300))
def test_a_share_is_cut_off_as_the_authors_do_but_gives_at_least_one_component(
    share: float, rows: int, columns: int
) -> None:
    assert dtscodec.RankShare(share).of(rows, columns) == max(1, int(share * min(rows, columns)))


def test_an_integer_is_a_rank() -> None:
    assert dtscodec.Rank(7).of(100, 200) == 7
    assert dtscodec.Rank(7).of(4, 200) == 4


@pytest.mark.parametrize("rank", [0, -1, 0.0, 1.5, True, float("nan")])
def test_a_rank_out_of_range_is_refused(rank: Any) -> None:
    for target in (dtscodec.Rank, dtscodec.RankShare):
        with pytest.raises(ValueError, match="rank"):
            target(rank)


def test_the_largest_entry_of_each_left_vector_is_positive_and_the_first_counts_on_ties() -> None:
    u, _, _ = truncated_svd(power_law(30, 20), 6)
    assert (u.gather(0, u.abs().argmax(0, keepdim=True)) > 0).all()
    tied = torch.tensor([[-0.5], [0.5], [0.1]])
    flipped, _, w = canonical_signs(tied, torch.ones(1), torch.ones(1, 2))
    assert flipped[0] == 0.5
    assert (w == -1).all()


def test_two_bits_an_element_are_stored_and_singular_values_in_fp32(tmp_path: Path) -> None:
    base, delta = torch.randn(512, 256), power_law(512, 256)
    paper_pack({"w": base}, {"w": base + delta}, tmp_path / "p", target=dtscodec.Rank(16))
    with dtscodec.open(tmp_path / "p") as pack:
        assert pack.reader.arena_bytes()["codes"] == 16 * (512 + 256) * 2 // 8
        assert pack.reader.arena_bytes()["numbers"] == -(-4 * (1 + 8 + 16) // 32) * 32  # norm, levels, S; padded


def test_vectors_are_quantized_without_svd_and_unchanged_elements_left_out(tmp_path: Path) -> None:
    base = torch.randn(100)
    fine = base.clone()
    fine[10:60] += torch.randn(50)
    paper_pack({"b": base, "w": torch.randn(2, 3)}, {"b": fine, "w": torch.randn(2, 3)}, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack:
        (block,) = pack.reader.entry("b").blocks
        assert isinstance(block, Values)
        assert block.rows == 50
        changed = (fine - base)[10:60].numpy()
        assert np.allclose(pack.delta("b")[10:60], published_quantizer(changed), rtol=1e-6)
        assert not pack.delta("b")[:10].any()


def test_convolutions_are_quantized_without_svd(tmp_path: Path) -> None:
    base = torch.randn(16, 3, 5, 5)
    paper_pack({"c": base}, {"c": base + torch.randn(16, 3, 5, 5)}, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack:
        assert isinstance(pack.reader.entry("c").blocks[0], Values)


def test_zero_rows_and_columns_are_left_out_and_stay_untouched_bit_for_bit(tmp_path: Path) -> None:
    base = torch.randn(80, 60)
    fine = base.clone()
    fine[5:50, 10:40] += power_law(45, 30)
    paper_pack({"w": base}, {"w": fine}, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack, dtscodec.decode(pack, {"w": base}) as decoded:
        (block,) = pack.reader.entry("w").blocks
        assert isinstance(block, LowRank)
        assert (block.rows, block.cols) == (45, 30)
        touched = torch.zeros(80, 60, dtype=torch.bool)
        touched[5:50, 10:40] = True
        assert torch.equal(decoded["w"][~touched], base[~touched])


def test_heads_are_kept_exactly_as_the_authors_do(tmp_path: Path) -> None:
    names = ["body.weight", "classifier.weight", "classifier.out_proj.weight", "score.weight"]
    base = {name: torch.randn(40, 30) for name in names}
    fine = {name: tensor + power_law(40, 30) for name, tensor in base.items()}
    paper_pack(base, fine, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack, dtscodec.decode(pack, base) as decoded:
        for name in names[1:]:
            assert isinstance(pack.reader.entry(name).blocks[0], Raw)
            assert torch.equal(decoded[name], fine[name])
        assert isinstance(pack.reader.entry("body.weight").blocks[0], LowRank)


@settings(max_examples=25, deadline=None)
@given(st.integers(33, 70), st.integers(33, 70), st.sampled_from(["matrix", "vector"]), st.integers(1, 9))
def test_the_stored_norm_is_the_norm_of_the_decoded_delta(rows: int, columns: int, levels: Any, rank: int) -> None:
    base = torch.randn(rows, columns)
    fine = base + power_law(rows, columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p")
        paper_pack({"w": base}, {"w": fine}, path, target=dtscodec.Rank(rank), preset=dtscodec.Paper(levels))
        with dtscodec.open(path) as pack:
            ((_, _, streams),) = pack.reader.blocks("w")
            assert streams.numbers[0] == pytest.approx(np.linalg.norm(pack.delta("w")), rel=1e-5)


def test_full_rank_gaussian_factors_leave_the_known_error_of_the_quantizer(tmp_path: Path) -> None:
    base = torch.zeros(400, 400)
    paper_pack({"w": base}, {"w": torch.randn(400, 400)}, tmp_path / "p", target=dtscodec.RankShare(1.0))
    with dtscodec.open(tmp_path / "p"):
        report = dtscodec.encode(
            {"w": base},
            {"w": torch.randn(400, 400)},
            tmp_path / "q",
            EncodeConfig(preset=dtscodec.Paper(), target=dtscodec.RankShare(1.0)),
        )
    assert report.relative_error == pytest.approx(0.529, abs=0.02)


def test_scales_refitted_by_least_squares_leave_the_known_error_of_these_codes_which_is_less(tmp_path: Path) -> None:
    delta = torch.randn(400, 400)
    paper_pack({"w": torch.zeros(400, 400)}, {"w": delta}, tmp_path / "p", target=dtscodec.RankShare(1.0))
    with dtscodec.open(tmp_path / "p") as pack:
        ((_, coded),) = pack.factors("w")
    assert coded.right is not None
    left, right, wanted = coded.left.astype(np.float64), coded.right.astype(np.float64), delta.double().numpy()
    system = (left.T @ left) * (right @ right.T)
    scales = np.linalg.lstsq(system, ((left.T @ wanted) * right).sum(1), rcond=None)[0]
    plain, refitted = (np.linalg.norm(wanted - (left * s) @ right) / np.linalg.norm(wanted) for s in (1.0, scales))
    assert refitted < plain
    assert refitted == pytest.approx(0.510, abs=0.02)


def test_a_tensor_that_did_not_change_takes_no_bytes(tmp_path: Path) -> None:
    same = torch.randn(40, 40)
    paper_pack({"w": same, "x": same}, {"w": same, "x": same + 1}, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack:
        assert isinstance(pack.reader.entry("w").blocks[0], Same)


def test_raw_is_chosen_where_it_is_smaller(tmp_path: Path) -> None:
    base = {"b": torch.randn(3), "w": torch.randn(2, 2), "x": torch.randn(100, 100)}
    fine = {name: tensor + torch.randn_like(tensor) for name, tensor in base.items()}
    paper_pack(base, fine, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack:
        assert isinstance(pack.reader.entry("b").blocks[0], Raw)
        assert isinstance(pack.reader.entry("w").blocks[0], Raw)
        assert isinstance(pack.reader.entry("x").blocks[0], LowRank)


def test_the_number_of_threads_does_not_change_a_byte(tmp_path: Path) -> None:
    base = {"w": torch.randn(500, 400), "c": torch.randn(64, 32, 5, 5)}
    fine = {name: tensor + torch.randn_like(tensor) * 0.01 for name, tensor in base.items()}
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            dtscodec.encode(base, fine, tmp_path / str(count), EncodeConfig(preset=dtscodec.Paper()))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len({(tmp_path / str(count)).read_bytes() for count in (1, 2, 3)}) == 1


def test_encoding_twice_gives_identical_bytes(tmp_path: Path) -> None:
    base = {"w": torch.randn(300, 200), "b": torch.randn(300)}
    fine = {name: tensor + torch.randn_like(tensor) * 0.01 for name, tensor in base.items()}
    for name in ("p", "q"):
        paper_pack(base, fine, tmp_path / name)
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes()
