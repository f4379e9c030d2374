"""Each peer of the fidelity benchmark against its published rule, written anew in numpy, and its bytes."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from benchmarks.fidelity.peers import Coded, Setting, settings
from benchmarks.fidelity.peers.bitdelta import code_by_matrix, code_by_row
from benchmarks.fidelity.peers.dare import code_dropped
from benchmarks.fidelity.peers.delta_come import ATTENTION, bands, code_bands
from benchmarks.fidelity.peers.dqrelo import code_signs_and_rank
from benchmarks.fidelity.peers.dts import code_density, four_levels
from benchmarks.fidelity.peers.grid import round_to_nearest
from benchmarks.fidelity.peers.int4 import code_outliers
from benchmarks.fidelity.peers.matrices import Matrices, thin_svd
from benchmarks.fidelity.peers.packages import Missing, Packed, laid_out_as, sparse_llm, zipnn
from benchmarks.fidelity.peers.peer import by_matrix, choice_bits
from benchmarks.fidelity.peers.svd import code_pooled_ranks, code_uniform_rank, code_uniform_share
from benchmarks.fidelity.peers.tsv import code_triplets
from benchmarks.fidelity.peers.tswitch import code_switch
from benchmarks.fidelity.peers.ultradelta import code_sparse_values, drop_alike, sparsities
from tests.encoding.published import published_matrix

SETTINGS = settings()
WORDS = "bert.embeddings.word_embeddings.weight"


def delta_of(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """A delta as fine-tuning makes them: some strong directions, and noise."""
    random = torch.Generator().manual_seed(seed)
    rank = min(rows, columns, 16)
    left = torch.randn(rows, rank, generator=random) / torch.arange(1, rank + 1)
    noise = torch.randn(rows, columns, generator=random)
    return (left @ torch.randn(rank, columns, generator=random) + 0.3 * noise) * 1e-3


def one(rows: int = 96, columns: int = 64, seed: int = 0) -> Matrices:
    return Matrices({"w": delta_of(rows, columns, seed)})


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take several times as long as one, at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def twelfth() -> Matrices:
    """A twelfth of a BERT of width 384: half a layer, a twelfth of each table. Shares are about those of the whole."""
    shapes = {
        WORDS: (2543, 384),
        "bert.embeddings.position_embeddings.weight": (43, 384),
        "bert.pooler.dense.weight": (32, 384),
        "query.weight": (384, 384),
        "key.weight": (384, 384),
        "intermediate.dense.weight": (1536, 384),
    }
    return Matrices({name: delta_of(*shape, seed) for seed, (name, shape) in enumerate(shapes.items())})


@pytest.fixture(scope="module")
def results(twelfth: Matrices) -> list[tuple[Setting, Coded]]:
    return [(setting, setting.code(twelfth, 0)) for setting in SETTINGS]


def share(coded: Coded, deltas: Matrices) -> float:
    return coded.size / sum(4 * delta.numel() for delta in deltas.values())


# All peers


def test_every_setting_has_a_name_of_its_own_and_there_are_no_more_than_110() -> None:
    assert len({(setting.peer, setting.label) for setting in SETTINGS}) == len(SETTINGS) <= 110


def test_every_setting_decodes_every_matrix_to_float32_of_its_shape(
    results: list[tuple[Setting, Coded]], twelfth: Matrices
) -> None:
    for setting, coded in results:
        for name, delta in twelfth.items():
            decoded = coded.deltas[name]
            assert decoded.dtype == torch.float32, setting
            assert decoded.shape == delta.shape, setting
            assert decoded.isfinite().all(), setting


def test_settings_without_embeddings_decode_them_to_zero_and_take_fewer_bytes(
    results: list[tuple[Setting, Coded]], twelfth: Matrices
) -> None:
    sizes = {(setting.peer, setting.label): coded.size for setting, coded in results}
    left = [(setting, coded) for setting, coded in results if setting.label.endswith("embeddings left")]
    assert left
    for setting, coded in left:
        assert not coded.deltas[WORDS].any(), setting
        assert coded.deltas["query.weight"].any(), setting
        whole = sizes.get((setting.peer, setting.label.removesuffix(", embeddings left")))
        assert whole is None or coded.size < whole, setting


def test_peers_of_free_rate_have_points_from_a_twentieth_of_a_percent_to_three(
    results: list[tuple[Setting, Coded]], twelfth: Matrices
) -> None:
    shares: dict[str, list[float]] = {}
    for setting, coded in results:
        shares.setdefault(setting.peer, []).append(100 * share(coded, twelfth))
    for peer in ("DTS", "UltraDelta", "T-Switch", "DARE + 4 bits", "Delta-CoMe (round to nearest, data-free)"):
        assert min(shares[peer]) < 0.06, peer
    for peer in set(shares) - {"BitDelta", "BitDelta (per row)", "int4 with outliers", "D-QReLO-lite"}:
        points = np.sort(shares[peer])
        assert np.count_nonzero((points > 0.04) & (points < 4)) >= 7, peer
        assert points[-1] > 2.2, peer
        assert points[-1] < 4, peer
        assert max(points[1:] / points[:-1]) < 3, f"{peer} leaves a gap"


def test_more_bytes_leave_less_error_in_every_sweep(results: list[tuple[Setting, Coded]], twelfth: Matrices) -> None:
    true = torch.cat([delta.flatten() for delta in twelfth.values()])
    sweeps: dict[tuple[str, bool], list[tuple[int, float]]] = {}
    for setting, coded in results:
        decoded = torch.cat([coded.deltas[name].flatten() for name in twelfth])
        # What keeps the norm need not come nearer, but it turns towards the true delta.
        cosine = float(true @ decoded / true.norm() / decoded.norm())
        sweeps.setdefault((setting.peer, "left" in setting.label), []).append((coded.size, cosine))
    for sweep, points in sweeps.items():
        cosines = [cosine for _, cosine in sorted(points)]
        assert cosines == sorted(cosines), sweep


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.peer}-{setting.label}")
def test_an_unchanged_matrix_takes_one_byte_and_stays(setting: Setting) -> None:
    some, none = Matrices({"w": delta_of(40, 30)}), Matrices({"w": delta_of(40, 30), "zero": torch.zeros(20, 30)})
    without, coded = setting.code(some, 0), setting.code(none, 0)
    assert not coded.deltas["zero"].any()
    # A budget in shares of the checkpoint grows with it.
    assert "pooled" in setting.peer or coded.size == without.size + 1


@pytest.mark.parametrize("setting", SETTINGS[:: len(SETTINGS) // 30], ids=lambda setting: setting.label)
def test_the_same_seed_gives_the_same_and_another_one_differs_if_the_peer_is_random(setting: Setting) -> None:
    deltas = Matrices({"w": delta_of(60, 50), "x": delta_of(50, 50, 1)})
    first, again, other = setting.code(deltas, 1), setting.code(deltas, 1), setting.code(deltas, 2)
    assert first.size == again.size
    assert all(torch.equal(first.deltas[name], again.deltas[name]) for name in deltas)
    same = all(torch.equal(first.deltas[name], other.deltas[name]) for name in deltas)
    assert same != setting.random


@pytest.mark.parametrize("shape", [(1, 7), (2, 64), (7, 1), (5, 5)])
def test_matrices_of_any_size_can_be_coded(shape: tuple[int, int]) -> None:
    for setting in SETTINGS:
        coded = setting.code(Matrices({"w": delta_of(*shape)}), 0)
        assert coded.deltas["w"].isfinite().all(), setting


# Matrices


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50), (500, 8)])
def test_the_svd_reproduces_the_matrix_with_orthonormal_vectors(shape: tuple[int, int]) -> None:
    matrix = delta_of(*shape)
    u, s, v = thin_svd(matrix)
    identity = torch.eye(min(shape))
    assert torch.allclose((u * s) @ v, matrix, atol=1e-8)
    assert torch.allclose(u.T @ u, identity, atol=1e-4)
    assert torch.allclose(v @ v.T, identity, atol=1e-4)
    assert np.allclose(s, np.linalg.svd(matrix.numpy(), compute_uv=False), rtol=1e-4)
    assert (u.gather(0, u.abs().argmax(0, keepdim=True)) > 0).all()


def test_an_svd_is_made_once_and_shared_with_the_view_without_embeddings() -> None:
    matrices = Matrices({WORDS: delta_of(30, 20), "w": delta_of(20, 20)})
    assert matrices.without_embeddings().svd("w") is matrices.svd("w")
    assert matrices.svd("w", torch.neg) is matrices.svd("w", torch.neg)
    assert matrices.svd("w", torch.neg) is not matrices.svd("w")


@pytest.mark.parametrize("tensor", [torch.zeros(3), torch.zeros(2, 3, dtype=torch.float16)])
def test_only_float32_matrices_are_taken(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="w: expected a float32 matrix"):
        Matrices({"w": tensor})


def test_the_entropy_of_a_choice_is_the_binomial_coefficients() -> None:
    assert choice_bits(100, 7) == pytest.approx(math.log2(math.comb(100, 7)))
    assert choice_bits(100, 0) == choice_bits(100, 100) == 0


# BitDelta


def test_bitdelta_is_the_mean_magnitude_with_signs_and_zero_counts_as_positive() -> None:
    delta = torch.tensor([[3.0, -1.0], [0.0, -4.0]])
    decoded, size = code_by_matrix("w", delta)
    assert decoded.tolist() == [[2.0, -2.0], [2.0, -2.0]]
    assert size == 1 + 4


def test_no_other_scale_leaves_a_smaller_error_than_bitdeltas() -> None:
    delta = delta_of(30, 20)
    decoded, _ = code_by_matrix("w", delta)
    errors = [(delta - decoded * factor).square().sum() for factor in (0.9, 0.99, 1.0, 1.01, 1.1)]
    assert min(errors) == errors[2]


def test_bitdelta_per_row_has_each_rows_mean_magnitude_in_fp16() -> None:
    delta = delta_of(30, 20)
    decoded, size = code_by_row("w", delta)
    means = np.abs(delta.numpy()).mean(axis=1).astype(np.float16).astype(np.float32)
    assert np.allclose(decoded.numpy(), means[:, None] * np.where(delta.numpy() >= 0, 1, -1), rtol=1e-3)
    assert size == 75 + 2 * 30


# Truncated SVD, TSV-C


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (300, 20)])
def test_the_squared_error_of_a_truncated_svd_is_that_of_the_singular_values_cut_off(shape: tuple[int, int]) -> None:
    deltas = one(*shape)
    coded = code_uniform_rank(deltas, 5)
    s = np.linalg.svd(deltas["w"].numpy().astype(np.float64), compute_uv=False)
    assert (deltas["w"] - coded.deltas["w"]).square().sum() == pytest.approx((s[5:] ** 2).sum(), rel=1e-4)
    assert np.linalg.matrix_rank(coded.deltas["w"].numpy(), rtol=1e-5) == 5
    assert coded.size == 2 * 5 * sum(shape)


def test_a_uniform_share_gives_each_matrix_its_rank_and_at_least_one() -> None:
    deltas = Matrices({"a": delta_of(50, 40), "b": delta_of(30, 4)})
    assert code_uniform_share(deltas, 0.11).size == 2 * (4 * 90 + 1 * 34)


def test_pooled_ranks_keep_to_the_budget_and_leave_less_error_than_uniform_ones_of_the_same_bytes() -> None:
    deltas = Matrices({"strong": 5 * delta_of(80, 60), "weak": delta_of(90, 60, 1), "long": delta_of(400, 30, 2)})
    uniform = code_uniform_rank(deltas, 6)
    pooled = code_pooled_ranks(deltas, uniform.size + 2 * len(deltas))
    assert 0.8 * uniform.size < pooled.size <= uniform.size + 2 * len(deltas)
    errors = [sum(float((deltas[n] - c.deltas[n]).square().sum()) for n in deltas) for c in (pooled, uniform)]
    assert errors[0] < errors[1]


def test_tsv_keeps_a_tasks_part_of_the_rank_in_fp32() -> None:
    deltas = one(96, 64)
    coded = code_triplets(deltas, 10)
    u, s, v = np.linalg.svd(deltas["w"].numpy(), full_matrices=False)
    assert np.allclose(coded.deltas["w"].numpy(), (u[:, :6] * s[:6]) @ v[:6], atol=1e-7)
    assert coded.size == 4 * (6 * (96 + 64) + 6)


# DTS


@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (64, 64)])
def test_dts_leaves_the_error_of_the_published_rule(shape: tuple[int, int]) -> None:
    deltas = one(*shape)
    true = deltas["w"].numpy()
    # The groups of a factor, taken as a whole, depend on the signs that an SVD happens to give its vectors.
    ours = np.linalg.norm(code_density(deltas, 0.2).deltas["w"].numpy() - true)
    assert ours == pytest.approx(np.linalg.norm(published_matrix(true, 0.2) - true), rel=0.02)


def test_the_four_levels_are_those_of_the_worked_example_and_keep_zeros() -> None:
    assert four_levels(torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])).tolist() == [
        pytest.approx([3, 1.5811388, 1.5811388, 0, -1])
    ]


def test_the_norm_of_each_factor_does_not_change() -> None:
    u, _, v = thin_svd(delta_of(96, 64))
    for factor in (u[:, :10], v[:10]):
        assert four_levels(factor).norm() == pytest.approx(float(factor.norm()), rel=1e-6)
        assert len(torch.unique(four_levels(factor))) == 4


def test_dts_takes_two_bits_an_element_and_never_less_than_a_component() -> None:
    assert code_density(one(96, 64), 0.29).size == 18 * (96 + 64) * 2 // 8 + 4 * 18 + 32
    assert code_density(one(96, 64), 0.001).size == (96 + 64) * 2 // 8 + 4 + 32


def test_positions_of_exact_zeros_are_paid_for() -> None:
    delta = delta_of(96, 64)
    delta[:7] = 0
    size = code_density(Matrices({"w": delta}), 0.05).size
    zeros = math.ceil(math.log2(math.comb(3 * 96, 3 * 7)) / 8)
    assert size == 3 * (96 + 64) * 2 // 8 + 4 * 3 + 32 + zeros


# Delta-CoMe


def test_the_published_bands_take_one_bit_a_parameter_before_scales() -> None:
    assert sum(bits * pairs * (4096 + 4096) for bits, pairs in ATTENTION.items()) / 4096**2 == 1.0
    assert bands(torch.Size([4096, 4096]), 1.0) == list(ATTENTION.items())


def test_bands_shrink_with_the_matrix_but_keep_a_pair_of_eight_bits() -> None:
    assert bands(torch.Size([384, 384]), 0.0) == [(8, 1)]
    assert bands(torch.Size([2, 384]), 1.0) == [(8, 1), (2, 1)]
    assert sum(pairs for _, pairs in bands(torch.Size([20, 20]), 50.0)) == 20


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_rounding_is_to_the_grid_between_least_and_largest_of_each_128(bits: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    expected = np.zeros_like(vectors)
    for row in range(3):
        for start in range(0, 300, 128):
            part = vectors[row, start : start + 128]
            least, largest = min(part.min(), 0), max(part.max(), 0)
            scale = np.float32(np.float16((largest - least) / (2**bits - 1)))
            zero = np.round(-least / scale)
            codes = np.clip(np.round(part / scale) + zero, 0, 2**bits - 1)
            expected[row, start : start + 128] = scale * (codes - zero)
    decoded, size = round_to_nearest(torch.from_numpy(vectors), bits)
    assert np.allclose(decoded.numpy(), expected, atol=1e-5)
    assert size == 3 * 300 * bits + 3 * 3 * (16 + bits)


def test_delta_come_pays_for_codes_scales_zeros_and_singular_values() -> None:
    # 384 x 384: bands of 1, 3 and 91 pairs, each vector three groups of 128.
    expected = sum(pairs * (2 * 384 * bits + 6 * (16 + bits) + 32) for bits, pairs in ((8, 1), (3, 3), (2, 91)))
    assert code_bands(one(384, 384), 1.0).size == math.ceil(expected / 8)


# UltraDelta


def test_of_each_value_the_same_share_is_dropped() -> None:
    codes = torch.randint(0, 16, (50, 60), generator=torch.Generator().manual_seed(0)).byte()
    kept = drop_alike(codes, 0.9, torch.Generator().manual_seed(1))
    for value in range(16):
        count = int((codes == value).sum())
        assert int(kept[codes == value].sum()) == count - round(0.9 * count)


def test_thirds_by_deviation_get_more_as_much_and_less_sparsity_and_the_target_holds_on_the_whole() -> None:
    deltas = Matrices({f"w{scale}": scale * delta_of(30, 20) for scale in (2, 1, 3, 5, 6, 4)})
    rates = sparsities(deltas, 0.97)
    assert [rates[f"w{scale}"] for scale in range(1, 7)] == pytest.approx([0.98] * 2 + [0.97] * 2 + [0.96] * 2)


def test_a_large_embedding_changes_only_the_sparsity_of_the_densest_third() -> None:
    deltas = Matrices({"small": delta_of(10, 10), "table": 2 * delta_of(100, 10), "other": 3 * delta_of(20, 10)})
    rates = sparsities(deltas, 0.9)
    assert rates["small"] > 0.9 > rates["table"] == rates["other"]
    assert sum(rates[name] * delta.numel() for name, delta in deltas.items()) / 1300 == pytest.approx(0.9)


def test_ultradelta_retains_rounded_enlarged_values_of_four_bits_and_a_position_each() -> None:
    deltas = one(96, 64)
    true = deltas["w"].numpy().astype(np.float64)
    coded = code_sparse_values(deltas, 0.9, 0)
    decoded = coded.deltas["w"].numpy()
    step = (true.max() - true.min()) / 15
    rounded = np.round((true - true.min()) / step) * step + true.min()
    kept = decoded != 0
    assert np.allclose(decoded[kept], rounded[kept] * 10, rtol=1e-3, atol=1e-7)
    # The only matrix is the densest third, and gets the target itself.
    assert kept.mean() == pytest.approx(0.1, abs=16 / 96 / 64)
    count = np.count_nonzero(kept)
    assert coded.size == math.ceil((4 * count + math.log2(math.comb(96 * 64, count))) / 8) + 12


# T-Switch


def test_tswitch_keeps_the_largest_of_each_sign_with_their_norm() -> None:
    deltas = one(96, 64)
    true = deltas["w"].numpy()
    coded = code_switch(deltas, 0.1)
    kept = np.zeros(true.shape, bool)
    for sign in (1, -1):
        magnitudes = np.sort((true * sign)[true * sign > 0])
        kept |= true * sign >= magnitudes[-int(len(magnitudes) * 0.1)]
    norm = np.linalg.norm(true[kept])
    count = np.count_nonzero(kept)
    assert np.allclose(coded.deltas["w"].numpy(), kept * np.sign(true) * norm / np.sqrt(count), rtol=1e-5)
    assert coded.deltas["w"].norm() == pytest.approx(norm, rel=1e-5)
    assert coded.size == math.ceil((count + math.log2(math.comb(96 * 64, count))) / 8) + 8


# DARE


def test_dare_is_unbiased_up_to_its_rounding() -> None:
    deltas = Matrices({"w": delta_of(12, 10)})
    mean = torch.stack([code_dropped(deltas, 0.5, seed, bits=8).deltas["w"] for seed in range(3000)]).mean(0)
    assert torch.allclose(mean, deltas["w"], atol=0.1 * float(deltas["w"].abs().max()))
    assert float((mean - deltas["w"]).norm() / deltas["w"].norm()) < 0.03


def test_dare_pays_for_values_ends_and_one_seed_but_not_for_positions() -> None:
    deltas = Matrices({"w": delta_of(96, 64), "x": delta_of(64, 64)})
    coded = code_dropped(deltas, 0.9, 0)
    counts = [np.count_nonzero(coded.deltas[name]) for name in deltas]
    assert coded.size == sum(math.ceil(4 * count / 8) + 8 for count in counts) + 8
    assert len(torch.unique(coded.deltas["w"])) <= 16 + 1


# D-QReLO-lite, int4


def test_the_low_rank_part_is_the_best_of_what_the_signs_leave() -> None:
    deltas = one(96, 64)
    true = deltas["w"].numpy().astype(np.float64)
    coded = code_signs_and_rank(deltas, 3)
    residual = true - np.abs(true).mean() * np.where(true >= 0, 1, -1)
    s = np.linalg.svd(residual, compute_uv=False)
    assert np.linalg.norm(true - coded.deltas["w"].numpy()) ** 2 == pytest.approx((s[3:] ** 2).sum(), rel=1e-3)
    assert coded.size == 96 * 64 // 8 + 4 + 2 * 3 * (96 + 64)


def test_int4_keeps_the_largest_percent_in_fp16_and_puts_the_rest_on_sixteen_steps() -> None:
    delta = delta_of(96, 64)
    decoded, size = code_outliers("w", delta)
    true = delta.numpy().ravel()
    order = np.argsort(-np.abs(true))
    large, rest = order[:61], order[61:]
    assert np.array_equal(decoded.numpy().ravel()[large], true[large].astype(np.float16).astype(np.float32))
    assert len(np.unique(decoded.numpy().ravel()[rest])) <= 16
    step = (true[rest].max() - true[rest].min()) / 15
    assert np.abs(decoded.numpy().ravel()[rest] - true[rest]).max() < 0.52 * step
    assert size == math.ceil((96 * 64 - 61) / 2) + 61 * 10 + 4
    assert by_matrix(Matrices({"w": torch.full((2, 3), 0.25)}), code_outliers).deltas["w"].tolist() == [[0.25] * 3] * 2


# Packages


def checkpoints(folder: Path) -> tuple[Path, Path]:
    """A base, and a classifier on it."""
    base = {"encoder.w": torch.randn(64, 48), "norm": torch.randn(48)}
    tuned = {"bert." + name: tensor + 1e-3 * torch.randn_like(tensor) for name, tensor in base.items()}
    save_file(base, folder / "base.safetensors")
    save_file(tuned | {"head.w": torch.randn(2, 48)}, folder / "tuned.safetensors")
    return folder / "base.safetensors", folder / "tuned.safetensors"


def test_the_base_is_laid_out_as_the_fine_tune_with_zeros_for_what_is_new() -> None:
    base = {"a": torch.arange(3.0), "b": torch.ones(2), "c": torch.ones(4)}
    tuned = {"bert.b": torch.zeros(2), "a": torch.zeros(3), "c": torch.zeros(5), "head": torch.zeros(1)}
    content = save(tuned)
    end = 8 + int.from_bytes(content[:8], "little")
    offsets = {name: entry["data_offsets"] for name, entry in json.loads(content[8:end]).items()}
    body = laid_out_as(content, save(base))
    found = {name: np.frombuffer(body[slice(*place)], np.float32).tolist() for name, place in offsets.items()}
    assert found == {"bert.b": [1, 1], "a": [0, 1, 2], "c": [0] * 5, "head": [0]}
    assert len(body) == len(content) - end


def test_zipnn_gives_a_size_or_says_why_not(tmp_path: Path) -> None:
    result = zipnn(*checkpoints(tmp_path), tmp_path)
    if isinstance(result, Missing):
        assert "zipnn" in result.reason
    else:
        assert result.restored is None
        assert result.size > 0


def test_sparse_llm_gives_a_checkpoint_of_the_same_names_or_says_why_not(tmp_path: Path) -> None:
    base, tuned = checkpoints(tmp_path)
    result = sparse_llm(base, tuned, tmp_path, rank=4)
    if isinstance(result, Missing):
        assert "core" in result.reason
    else:
        assert isinstance(result, Packed)
        assert result.restored is not None
        restored, true = load_file(result.restored), load_file(tuned)
        assert {name: tensor.shape for name, tensor in restored.items()} == {n: t.shape for n, t in true.items()}
        assert torch.equal(restored["head.w"], true["head.w"])
