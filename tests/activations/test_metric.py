"""The activation metric, and the low-rank matrix that is best for a layer's outputs."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.activations.gram_file import Gram, GramSet, save_grams
from dtscodec.activations.metric import Metric
from dtscodec.encoding.fitting.weighted_delta import WeightedDelta
from dtscodec.encoding.targets import Size
from dtscodec.errors import ConfigError, EncodeError
from dtscodec.linalg.spectrum import Factors
from tests.support import make_pack

ROWS, OUT, IN, RANK = 400, 48, 40, 6


def essential(delta: torch.Tensor, metric: Metric, rank: int) -> tuple[Factors, WeightedDelta]:
    sight = WeightedDelta.through(metric, delta, rank, "cpu")
    return sight.start, sight


def inputs(seed: int = 0) -> torch.Tensor:
    """Inputs of very different strengths in different directions: float64 [ROWS, IN]."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(IN, IN, generator=generator, dtype=torch.float64))[0]
    strengths = 10.0 ** torch.linspace(1, -2, IN, dtype=torch.float64)
    rows: torch.Tensor = torch.randn(ROWS, IN, generator=generator, dtype=torch.float64) * strengths @ turn
    return rows


def delta(seed: int = 1) -> torch.Tensor:
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(seed))


def gram_of(x: torch.Tensor, input_first: bool = False) -> Gram:
    return Gram(x.T @ x / len(x), x.mean(0), len(x), input_first)


def metric_of(x: torch.Tensor, damping: float = 0.0, input_first: bool = False) -> Metric:
    found = Metric.of(gram_of(x, input_first), damping)
    assert found is not None
    return found


def product(factors: Factors) -> torch.Tensor:
    return (factors.u * factors.s) @ factors.v


def test_the_remaining_error_of_outputs_is_the_discarded_energy() -> None:
    x, d = inputs(), delta()
    found = product(essential(d, metric_of(x), RANK)[0]).double()
    left = (x @ (d.double() - found).T).square().sum()
    discarded = torch.linalg.svdvals(x @ d.double().T)[RANK:].square().sum()
    assert float(left) == pytest.approx(float(discarded), rel=1e-3)


def test_it_is_the_whitened_svd() -> None:
    x, d = inputs(), delta()
    root = torch.linalg.cholesky(x.T @ x)
    u, s, v = torch.linalg.svd(d.double() @ root)
    whitened = (u[:, :RANK] * s[:RANK]) @ v[:RANK] @ torch.linalg.inv(root)
    found = product(essential(d, metric_of(x), RANK)[0]).double()
    assert torch.allclose(found, whitened, atol=2e-2 * float(whitened.abs().max()))


@pytest.mark.parametrize("damping", [0.0, 1e7])
def test_inputs_alike_in_all_directions_and_strong_damping_give_the_svd(damping: float) -> None:
    x = torch.eye(IN, dtype=torch.float64) if not damping else inputs()
    d = delta()
    u, s, v = torch.linalg.svd(d, full_matrices=False)
    assert torch.allclose(
        product(essential(d, metric_of(x, damping), RANK)[0]), (u[:, :RANK] * s[:RANK]) @ v[:RANK], atol=1e-3
    )


def test_a_weight_with_its_inputs_first_is_the_transpose() -> None:
    x, d = inputs(), delta()
    one, sight = essential(d, metric_of(x), RANK)
    other, turned = essential(d.T.contiguous(), metric_of(x, input_first=True), RANK)
    assert torch.allclose(product(one), product(other).T, atol=1e-3)
    assert isinstance(sight.delta, torch.Tensor)
    assert isinstance(turned.delta, torch.Tensor)
    assert torch.allclose(sight.delta, turned.delta.T, atol=1e-4)


def test_factors_are_orthonormal_and_descend() -> None:
    factors, _ = essential(delta(), metric_of(inputs()), RANK)
    assert torch.allclose(factors.u.T @ factors.u, torch.eye(RANK), atol=1e-5)
    assert torch.allclose(factors.v @ factors.v.T, torch.eye(RANK), atol=1e-5)
    assert (factors.s.diff() <= 0).all()


def test_zero_inputs_give_no_metric() -> None:
    assert Metric.of(Gram(torch.zeros(4, 4, dtype=torch.float64)), 0.1) is None


def test_the_layers_outputs_come_closer_at_the_same_size(tmp_path: Path) -> None:
    x, d = inputs(), delta()
    save_grams(tmp_path / "grams.safetensors", GramSet({"w.weight": gram_of(x)}))
    base = {"w.weight": torch.zeros(OUT, IN)}
    errors = {}
    for calibration in (None, str(tmp_path / "grams.safetensors")):
        path = tmp_path / f"pack-{calibration is None}"
        make_pack(
            base,
            {"w.weight": d},
            path,
            target=Size.parse("1400B"),
            preset=dtscodec.Best(grams=calibration, damping=0.01),
        )
        with dtscodec.open(path) as pack:
            found = torch.from_numpy(pack.delta("w.weight")).double()
        errors[calibration is None] = float((x @ (d.double() - found).T).norm() / (x @ d.double().T).norm())
        assert path.stat().st_size <= 1400
    assert errors[False] < 0.6 * errors[True]


def test_unchanged_rows_and_columns_are_not_coded(tmp_path: Path) -> None:
    x, d = inputs(), delta()
    d[::3], d[:, ::5] = 0, 0
    save_grams(tmp_path / "grams.safetensors", GramSet({"w.weight": gram_of(x)}))
    base = {"w.weight": torch.zeros(OUT, IN)}
    grams = str(tmp_path / "grams.safetensors")
    make_pack(base, {"w.weight": d}, tmp_path / "pack", target=Size.parse("1500B"), preset=dtscodec.Best(grams=grams))
    with dtscodec.open(tmp_path / "pack") as pack:
        found = torch.from_numpy(pack.delta("w.weight"))
    assert not found[::3].any()
    assert not found[:, ::5].any()


def test_a_gram_matrix_of_another_layer_is_refused(tmp_path: Path) -> None:
    save_grams(tmp_path / "grams.safetensors", GramSet({"w.weight": Gram(torch.eye(7, dtype=torch.float64))}))
    config = dtscodec.EncodeConfig(preset=dtscodec.Best(grams=str(tmp_path / "grams.safetensors")))
    with pytest.raises(EncodeError, match="40 inputs"):
        dtscodec.encode({"w.weight": torch.zeros(OUT, IN)}, {"w.weight": delta()}, tmp_path / "pack", config)


def test_the_paper_preset_and_odd_dampings_are_refused() -> None:
    with pytest.raises(TypeError, match="grams"):
        dtscodec.Paper(grams="grams.safetensors")  # type: ignore[call-arg]
    for damping in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="damping"):
            dtscodec.Best(damping=damping)
