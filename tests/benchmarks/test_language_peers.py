"""The peers on language models: their bytes, their published rules, and what calibration is good for."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.fidelity.peers import matrices
from benchmarks.fidelity.peers.bitdelta import code_by_matrix, signs
from benchmarks.fidelity.peers.delta_come import PUBLISHED, code_bands
from benchmarks.fidelity.peers.grid import grid_of, round_to_nearest
from benchmarks.fidelity.peers.matrices import Matrices, thin_svd
from benchmarks.fidelity.peers.peer import Coded, Setting
from benchmarks.language.calibration import Calibration
from benchmarks.language.peers import METHODS, distillation, loraquant
from benchmarks.language.peers.delta_come import code_by_gptq, code_for_inputs
from benchmarks.language.peers.distillation import distil
from benchmarks.language.peers.gptq import round_by_gptq
from benchmarks.language.peers.layers import Layer, first_batches
from benchmarks.language.peers.loraquant import code_as_lora, leading_count, round_products, signs_and_means
from benchmarks.language.peers.sweeps import SINGLE_PRECISION
from benchmarks.language.tasks import FULL

WORDS = "model.embed_tokens.weight"


class TinyCalibration(Calibration):
    """Two Llamas of two layers and four batches of random tokens."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FULL[0], folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=48,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
        model = LlamaForCausalLM(config)
        model.save_pretrained(self.base)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2 and "embed" not in name:
                    left, right = torch.randn(len(parameter), 4), torch.randn(4, parameter.shape[1])
                    parameter.add_(left @ right + torch.randn_like(parameter), alpha=0.02)
        model.save_pretrained(self.fine_tune)

    @property
    def base(self) -> Path:
        return self._cache / "base"

    @property
    def fine_tune(self) -> Path:
        return self._cache / "fine-tune"

    @cached_property
    def batches(self) -> Sequence[Mapping[str, Tensor]]:
        random = torch.Generator().manual_seed(1)
        batches = []
        for length in (12, 16, 20, 24):
            mask = torch.ones(8, length, dtype=torch.int64)
            mask[:4, length - 5 :] = 0
            batches.append({"input_ids": torch.randint(0, 48, (8, length), generator=random), "attention_mask": mask})
        return batches

    @cached_property
    def deltas(self) -> Matrices:
        base, fine = (
            dict(LlamaForCausalLM.from_pretrained(folder).named_parameters()) for folder in (self.base, self.fine_tune)
        )
        return Matrices({name: (fine[name] - base[name]).detach() for name in base if base[name].ndim == 2})

    def divergence(self, deltas: Mapping[str, Tensor]) -> float:
        """Mean squared error of the logits of base and deltas."""
        model, fine = self.load_model(self.base, deltas), self.load_model(self.fine_tune)
        with torch.no_grad():
            errors = [
                (model(**batch).logits - fine(**batch).logits)[batch["attention_mask"].bool()].square().mean()
                for batch in self.batches
            ]
        return float(torch.stack(errors).mean())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take several times as long as one, at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCalibration:
    return TinyCalibration(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def results(tiny: TinyCalibration) -> list[tuple[Setting, Coded]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "STEPS", 3)
        patch.setattr(loraquant, "STEPS", 3)
        return [(setting, setting.code(tiny.deltas, 0)) for setting in settings(tiny)]


def settings(calibration: Calibration) -> list[Setting]:
    return [setting for method in METHODS for setting in method.settings(calibration)]


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    """A delta as fine-tuning makes them: some strong directions, and noise."""
    random = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, 16, generator=random) / torch.arange(1, 17)
    return (left @ torch.randn(16, columns, generator=random) + 0.3 * torch.randn(rows, columns, generator=random)) / 99


def correlated(features: int, samples: int = 2000, seed: int = 0) -> Tensor:
    """Inputs [samples, features], of which a few directions hold most."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, generator=random) / torch.arange(1, features + 1)[:, None]
    return torch.randn(samples, features, generator=random) @ mix


# All peers


def test_every_setting_has_a_name_of_its_own_and_each_peer_no_more_than_sixteen(tiny: TinyCalibration) -> None:
    found = settings(tiny)
    assert len({(setting.peer, setting.label) for setting in found}) == len(found)
    assert max(sum(s.peer == peer for s in found) for peer in {s.peer for s in found}) <= 16


def test_every_setting_decodes_finite_matrices_and_leaves_embeddings_where_it_says_so(
    results: list[tuple[Setting, Coded]], tiny: TinyCalibration
) -> None:
    for setting, coded in results:
        for name, delta in tiny.deltas.items():
            assert coded.deltas[name].shape == delta.shape, setting
            assert coded.deltas[name].isfinite().all(), setting
        if "embeddings left" in setting.label:
            assert not coded.deltas[WORDS].any(), setting


def test_calibrated_settings_say_so_and_have_names_of_their_own(tiny: TinyCalibration) -> None:
    found = settings(tiny)
    calibrated = {setting.peer for setting in found if setting.calibrated}
    assert calibrated == {"BitDelta (distilled)", "Delta-CoMe (GPTQ)"}
    assert not calibrated & {setting.peer for setting in found if not setting.calibrated}


def test_listing_the_settings_reads_nothing(tmp_path: Path) -> None:
    assert settings(Calibration(FULL[0], tmp_path))
    assert not list(tmp_path.iterdir())


def test_peers_of_free_rate_have_points_from_a_twentieth_of_a_percent_to_more_than_five_percent() -> None:
    # Matrices of SmolLM2-135M: the layers hold 106.2 of its 134.5 million parameters.
    shapes = {"self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "mlp.up_proj": (1536, 576)}
    deltas = Matrices({name: matrix(*shape) for name, shape in shapes.items()})
    whole = 2 * sum(delta.numel() for delta in deltas.values()) * 134.5 / 106.2
    shares: dict[str, list[float]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loraquant, "STEPS", 2)
        for setting in settings(Calibration(FULL[0], Path())):
            if not setting.calibrated:
                shares.setdefault(setting.peer, []).append(100 * setting.code(deltas, 0).size / whole)
    # The first two have one rate, the third begins there; the budget of the last is its size, on the whole model.
    for peer in set(shares) - {"BitDelta", "BitDelta (per row)", "D-QReLO-lite", "SVD fp16 (ranks pooled)"}:
        points = np.sort(shares[peer])
        assert points[0] < 0.065, peer
        assert 5.5 < points[-1] < 10.5, peer
        assert max(points[1:] / points[:-1]) < 4.5, f"{peer} leaves a gap"


def test_svds_are_stored_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Matrices({"w": matrix(20, 30)}, tmp_path / "svds")
    assert first.svd("w", torch.neg).v.shape == first.svd("w").v.shape == (20, 30)
    assert len(list((tmp_path / "svds").iterdir())) == 2
    monkeypatch.delattr(matrices, "thin_svd")
    again = Matrices({"w": matrix(20, 30)}, tmp_path / "svds")
    assert all(map(torch.equal, first.svd("w"), again.svd("w")))


@pytest.mark.parametrize("other", [matrix(20, 30, 1), matrix(30, 20)])
def test_a_stored_svd_of_another_matrix_is_made_anew(other: Tensor, tmp_path: Path) -> None:
    Matrices({"w": matrix(20, 30)}, tmp_path).svd("w")
    assert all(map(torch.equal, Matrices({"w": other}, tmp_path).svd("w"), thin_svd(other)))


def test_the_version_of_a_method_depends_on_its_code_and_not_on_the_settings_of_others() -> None:
    versions = [method.version() for method in METHODS]
    assert len(set(versions)) == len(METHODS)


# GPTQ, Delta-CoMe


@pytest.mark.parametrize("bits", [2, 3])
def test_gptq_leaves_less_error_in_the_outputs_than_rounding_to_nearest(bits: int) -> None:
    weights, inputs = matrix(40, 96), correlated(96)
    grid = grid_of(weights, bits)
    errors = [
        float((inputs @ (weights - rounded).T).norm())
        for rounded in (round_by_gptq(weights, grid, inputs.T @ inputs / len(inputs)), grid.round(weights))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_gptq_rounds_to_the_same_grid_and_for_uncorrelated_inputs_to_nearest() -> None:
    weights = matrix(10, 50)
    grid = grid_of(weights, 3)
    moments = torch.diag(torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.1)
    assert torch.allclose(round_by_gptq(weights, grid, moments), round_to_nearest(weights, 3)[0])
    rounded = round_by_gptq(weights, grid, correlated(50).T @ correlated(50))
    assert torch.allclose(grid.round(rounded), rounded, atol=1e-7)


def test_gptq_bears_inputs_that_are_always_zero() -> None:
    inputs = correlated(30)
    inputs[:, 7] = 0
    weights = matrix(5, 30)
    assert round_by_gptq(weights, grid_of(weights, 2), inputs.T @ inputs).isfinite().all()


def test_a_matrix_coded_for_its_inputs_takes_the_bytes_of_the_one_rounded_and_serves_them_better() -> None:
    delta, inputs = matrix(96, 96), correlated(96)
    matrices = Matrices({"w": delta})
    rounded = code_bands(matrices, 1.0)
    fitted, size = code_for_inputs(matrices.svd("w"), inputs.T @ inputs / len(inputs), [(8, 1), (3, 1), (2, 23)])
    assert size == rounded.size
    errors = [float((inputs @ (decoded - delta).T).norm()) for decoded in (fitted, rounded.deltas["w"])]
    assert errors[0] < errors[1]


def test_inputs_of_a_module_are_those_of_the_model_without_padding(tiny: TinyCalibration) -> None:
    model = tiny.load_model(tiny.base)
    layer = model.model.layers[1].mlp.down_proj
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        for batch in tiny.batches:
            model(**batch)
        handle.remove()
        inputs = torch.cat([x[batch["attention_mask"].bool()] for x, batch in zip(seen, tiny.batches, strict=True)])
        second = Layer(model.model.layers[0], first_batches(model, tiny.batches)).outputs()
        moments = Layer(model.model.layers[1], second).moments("mlp.down_proj")
    assert torch.allclose(moments, inputs.T @ inputs / len(inputs), rtol=1e-3, atol=1e-5)


def test_gptq_brings_the_logits_nearer_than_rounding_to_nearest_at_the_same_bytes(tiny: TinyCalibration) -> None:
    deltas = tiny.deltas.without_embeddings()
    rounded = code_bands(deltas, 1.0, SINGLE_PRECISION)
    fitted = code_by_gptq(tiny, 1.0, SINGLE_PRECISION, deltas)
    assert fitted.size == rounded.size
    assert tiny.divergence(fitted.deltas) < tiny.divergence(rounded.deltas)


def test_by_gptq_embeddings_are_rounded_to_nearest_and_unchanged_matrices_take_one_byte(tiny: TinyCalibration) -> None:
    still = "model.layers.1.mlp.up_proj.weight"
    deltas = Matrices({**tiny.deltas, WORDS: matrix(48, 32), still: torch.zeros_like(tiny.deltas[still])})
    coded, rounded = code_by_gptq(tiny, 1.0, PUBLISHED, deltas), code_bands(deltas, 1.0)
    assert torch.equal(coded.deltas[WORDS], rounded.deltas[WORDS])
    assert not coded.deltas[still].any()
    assert coded.deltas.keys() == deltas.keys()
    assert coded.size == rounded.size


def test_a_larger_share_of_the_bands_leaves_less_error(tiny: TinyCalibration) -> None:
    deltas = tiny.deltas.without_embeddings()
    small, large = (code_by_gptq(tiny, share, PUBLISHED, deltas) for share in (0.0, 3.0))
    assert small.size < large.size
    assert tiny.divergence(large.deltas) < tiny.divergence(small.deltas)


# BitDelta


@pytest.mark.parametrize("factor", [1, 2])
def test_distillation_lowers_the_error_of_the_logits_by_scales_alone(tiny: TinyCalibration, factor: int) -> None:
    deltas = tiny.deltas.without_embeddings()
    codes = {name: signs(delta).to(torch.int8) for name, delta in deltas.items()}
    start = {name: factor * float(delta.abs().mean()) for name, delta in deltas.items()}
    trained, losses = distil(tiny, codes, start, 2e-3 * factor, 24)
    decoded = [{name: scales[name] * codes[name] for name in codes} for scales in (trained, start)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    assert tiny.divergence(decoded[0]) < (0.99 if factor == 1 else 0.6) * tiny.divergence(decoded[1])


def test_without_steps_the_scales_are_those_of_bitdelta(tiny: TinyCalibration) -> None:
    name, delta = next(iter(tiny.deltas.without_embeddings().items()))
    trained, losses = distil(tiny, {name: signs(delta)}, {name: 0.25}, 1e-3, 0)
    assert trained == {name: 0.25}
    assert not losses


def test_distilled_scales_take_no_more_bytes(results: list[tuple[Setting, Coded]]) -> None:
    sizes = {
        peer: {coded.size for setting, coded in results if setting.peer == peer}
        for peer in ("BitDelta", "BitDelta (distilled)")
    }
    assert sizes["BitDelta"] == sizes["BitDelta (distilled)"]


# LoRAQuant


def test_leading_components_are_those_before_the_ratio_is_reached_and_at_least_one() -> None:
    s = torch.tensor([3.0, 2.0, 1.0, 0.5])
    shares = np.cumsum(s.numpy() ** 2) / np.sum(s.numpy() ** 2)
    for ratio in (0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0):
        assert leading_count(s, ratio) == max(1, int(np.argmax(shares >= ratio - 1e-12)))


def test_low_components_become_signs_and_the_mean_of_each_128() -> None:
    vectors = matrix(3, 300)
    decoded, size = signs_and_means(vectors)
    for row in range(3):
        for start in range(0, 300, 128):
            part = vectors[row, start : start + 128]
            expected = part.abs().mean() * part.sign()
            assert torch.allclose(decoded[row, start : start + 128], expected, rtol=1e-3)
    assert size == 3 * 300 + 3 * 3 * 16


@pytest.mark.parametrize("bits", [2, 3])
def test_the_products_of_moved_vectors_are_nearer_than_those_of_rounded_ones(bits: int) -> None:
    left, right = matrix(6, 200), matrix(6, 160, 1)
    moved_left, moved_right, size = round_products(left, right, bits)
    (rounded_left, left_bits), (rounded_right, right_bits) = (round_to_nearest(side, bits) for side in (left, right))
    assert size == left_bits + right_bits
    for row in range(6):
        true = torch.outer(left[row], right[row])
        moved = float((torch.outer(moved_left[row], moved_right[row]) - true).norm())
        assert moved <= float((torch.outer(rounded_left[row], rounded_right[row]) - true).norm()) * 1.001


def test_loraquant_pays_for_codes_scales_zeros_and_the_count() -> None:
    matrices = Matrices({"w": matrix(192, 256)})
    count = leading_count(matrices.svd("w").s[:10], 0.8)
    high, low = count * 448 * 3 + count * 4 * (16 + 3), (10 - count) * (448 + 4 * 16)
    assert code_as_lora(matrices, 10, 0.8, 3).size == math.ceil((high + low + 16) / 8)


def test_more_components_and_more_bits_leave_less_error() -> None:
    matrices = Matrices({"w": matrix(192, 256)})
    runs = [code_as_lora(matrices, rank, 0.9, bits) for rank, bits in ((2, 2), (8, 2), (16, 2), (16, 3))]
    errors = [float((coded.deltas["w"] - matrices["w"]).norm()) for coded in runs]
    assert errors == sorted(errors, reverse=True)
    assert [coded.size for coded in runs] == sorted(coded.size for coded in runs)


def test_a_rank_beyond_the_matrix_is_all_of_it() -> None:
    matrices = Matrices({"w": matrix(20, 30)})
    assert code_as_lora(matrices, 20, 0.9, 2).size == code_as_lora(matrices, 400, 0.9, 2).size


def test_a_matrix_of_lower_rank_than_asked_for_stays_finite() -> None:
    delta: Any = torch.outer(torch.ones(20), torch.arange(30.0))
    assert code_as_lora(Matrices({"w": delta}), 8, 0.9, 2).deltas["w"].isfinite().all()


def test_bitdelta_takes_a_bit_an_element(tiny: TinyCalibration) -> None:
    for name, delta in tiny.deltas.items():
        assert code_by_matrix(name, delta)[1] == math.ceil(delta.numel() / 8) + 4
