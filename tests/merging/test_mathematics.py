"""Facts that the mathematics promises: polar factors, essential subspaces, thresholds, searches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dtscodec
from dtscodec.activations.gram_file import Gram
from dtscodec.errors import ConfigError
from dtscodec.linalg.svd import triplets
from dtscodec.merging.alpha_search import AlphaSearch, golden_section
from dtscodec.merging.by_matrix import polar
from dtscodec.merging.methods.esm import essential
from dtscodec.merging.methods.task_arithmetic import TaskArithmetic
from dtscodec.merging.methods.threshold import Threshold
from tests.merging.models import base_state, merged, normal, task_states, wide


def inputs(rows: int, columns: int) -> torch.Tensor:
    """Strongly anisotropic ones: float64."""
    mixed = normal(1, rows, columns).double() * torch.logspace(0, -2, columns, dtype=torch.float64)
    turned: torch.Tensor = mixed @ torch.linalg.qr(normal(2, columns, columns).double())[0]
    return turned


def gram_of(x: torch.Tensor) -> Gram:
    return Gram(x.T @ x / len(x), None, len(x))


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
@pytest.mark.parametrize("k", [1, 5, 11])
def test_what_essential_directions_leave_is_what_was_discarded(shape: tuple[int, int], k: int) -> None:
    delta, x = normal(3, *shape).double(), inputs(500, shape[1])
    found = essential(delta, gram_of(x))
    left = torch.linalg.matrix_norm(x @ (delta - found.u[:, :k] @ found.v[:k]).T) ** 2
    discarded = torch.linalg.svdvals(x @ delta.T)[k:].square().sum()
    assert math.isclose(left, discarded, rel_tol=1e-9)
    assert torch.allclose(found.s.square() * len(x), torch.linalg.svdvals(x @ delta.T)[: len(found)] ** 2)


@pytest.mark.parametrize("k", [1, 5, 11])
def test_essential_directions_give_the_solution_of_the_whitened_svd(k: int) -> None:
    delta, x = normal(3, 30, 12).double(), inputs(500, 12)
    root = torch.linalg.cholesky(x.T @ x)
    u, s, v = torch.linalg.svd(delta @ root, full_matrices=False)
    whitened = torch.linalg.solve_triangular(root, (u[:, :k] * s[:k]) @ v[:k], upper=False, left=False)
    found = essential(delta, gram_of(x))
    assert torch.allclose(found.u[:, :k] @ found.v[:k], whitened, atol=1e-8)


def test_with_inputs_of_no_direction_they_are_the_svd() -> None:
    delta = normal(3, 30, 12).double()
    identity = essential(delta, Gram(torch.eye(12, dtype=torch.float64)))
    plain, svd = essential(delta, None), triplets(delta)
    for k in (1, 6, 12):
        product = (svd.u[:, :k] * svd.s[:k]) @ svd.v[:k]
        assert torch.allclose(identity.u[:, :k] @ identity.v[:k], product, atol=1e-10)
        assert torch.allclose(plain.u[:, :k] @ plain.v[:k], product, atol=1e-10)


def test_with_strong_damping_they_are_the_svd_and_without_they_are_not() -> None:
    delta, x = normal(3, 30, 12).double(), inputs(500, 12)
    u = triplets(delta).top(4).u
    apart = {damping: projectors_apart(essential(delta, gram_of(x), damping).u[:, :4], u) for damping in (0.0, 1e9)}
    assert apart[1e9] < 1e-6
    assert apart[0.0] > 0.1


def projectors_apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(one @ one.T - other @ other.T))


def test_directions_that_no_input_shows_are_not_made_up() -> None:
    delta, x = normal(3, 30, 12).double(), inputs(5, 12)
    assert len(essential(delta, gram_of(x))) == 5
    assert len(essential(delta, gram_of(x), damping=0.01)) == 12


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (8, 8)])
def test_a_polar_factor_is_orthonormal_and_the_whitened_matrix(shape: tuple[int, int]) -> None:
    matrix = normal(4, *shape).double()
    tall = matrix if shape[0] >= shape[1] else matrix.T
    squares, vectors = torch.linalg.eigh(tall.T @ tall)
    whitened = tall @ (vectors * squares.rsqrt()) @ vectors.T
    found = polar(matrix)
    assert torch.allclose(found.factor, whitened if shape[0] >= shape[1] else whitened.T, atol=1e-12)
    gram = found.factor.T @ found.factor if shape[0] >= shape[1] else found.factor @ found.factor.T
    assert torch.allclose(gram, torch.eye(min(shape), dtype=torch.float64), atol=1e-12)
    assert math.isclose(found.mean, float(torch.linalg.svdvals(matrix).mean()))


def test_the_polar_factor_of_zero_is_zero() -> None:
    found = polar(torch.zeros(3, 4))
    assert not found.factor.any()
    assert found.mean == 0


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.data())
def test_a_threshold_is_the_kth_magnitude_exactly(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    cut = data.draw(st.integers(0, len(values)))
    parts = [torch.tensor(part, dtype=torch.float32) for part in (values[:cut], values[cut:])]
    found = Threshold(k)
    for part in parts:
        found.add(part)
    found.begin_second_pass()
    for part in parts:
        found.add(part)
    assert found.value() == sorted(map(abs, values))[k - 1]


def test_equal_tasks_of_no_common_direction_leave_the_known_difference_vectors(tmp_path: Path) -> None:
    """For eight orthogonal moves of one norm: 0.94 of it from the average, more from stronger merges (D)."""
    base = {"w": torch.zeros(64, 64)}
    basis = torch.linalg.qr(normal(1, 64 * 64, 8))[0].T.reshape(8, 64, 64)
    tasks = [{"w": move} for move in basis]
    for alpha, expected in ((1 / 8, 0.94), (0.3, 1.06), (0.4, 1.22)):
        method = TaskArithmetic(alpha)
        report = dtscodec.merge(tasks, tmp_path / "merged.safetensors", method, base, force=True)
        for found in report.distances:
            assert found.ratio == pytest.approx(expected, abs=0.006)
            assert found.average == pytest.approx((7 / 8) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("method", ["average", "ties", "iso-c"])
def test_weights_that_sum_to_one_give_the_same_mixture_whatever_the_base(tmp_path: Path, method: str) -> None:
    """Base + sum of w_t (theta_t - base), coded without loss, is sum of w_t theta_t for any base (E)."""
    states, shares = task_states(), [0.5, 0.8, -0.3]
    out = tmp_path / "base.safetensors"
    dtscodec.merge(states, out, method, base_state())
    base = merged(states, method, tmp_path, base_state())
    decoded = []
    for task, state in enumerate(states):
        pack = tmp_path / f"{task}.safetensors"
        dtscodec.encode(out, state, pack, dtscodec.EncodeConfig(raw=("*",)))
        with dtscodec.decode(pack, out) as found:
            decoded.append(wide(dict(found)))
    for name, start in base.items():
        mixture = start + sum(share * (of[name] - start) for share, of in zip(shares, decoded, strict=True))
        plain = sum(share * wide(state)[name] for share, state in zip(shares, states, strict=True))
        assert np.abs(mixture - plain).max() < 1e-12


def test_a_search_finds_the_alpha_that_a_score_likes(tmp_path: Path) -> None:
    base, states = {"w": torch.zeros(3)}, [{"w": torch.tensor([1.0, 2.0, 3.0])}]
    wanted = torch.tensor([0.7, 1.4, 2.1])
    seen = []

    def score(weights):  # type: ignore[no-untyped-def]
        seen.append(1)
        assert list(weights) == ["w"]
        return -float((weights["w"] - wanted).norm())

    out = tmp_path / "merged.safetensors"
    report = dtscodec.merge(states, out, "task-arithmetic", base, search=AlphaSearch(score))
    alpha = float(report.method.split("alpha=")[1])
    assert alpha == pytest.approx(0.7, abs=0.01)
    assert len(seen) <= 17
    with dtscodec.Base(out) as written:
        assert torch.frombuffer(written.read("w").copy(), dtype=torch.float32)[0] == pytest.approx(alpha)


@pytest.mark.parametrize("best", [0.1, 0.31, 1.0, 10.0])
def test_the_golden_section_ends_near_the_best_point(best: float) -> None:
    found, value = golden_section(lambda x: -abs(x - best), AlphaSearch(lambda weights: 0.0))
    assert abs(found / best - 1) < 0.02
    assert value == -abs(found - best)


def test_a_search_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        AlphaSearch(lambda weights: 0.0, low=1, high=1)
    with pytest.raises(ConfigError):
        AlphaSearch(lambda weights: 0.0, low=0)
    with pytest.raises(ConfigError):
        dtscodec.merge(task_states(), tmp_path / "x.safetensors", search=AlphaSearch(lambda weights: 0.0))
