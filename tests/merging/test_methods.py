"""Each method against an independent implementation, and what becomes of unusual tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dtscodec.activations.gram_file import Gram, GramSet, save_grams
from dtscodec.merging.methods.esm import Esm, relative_squares_by_kind
from dtscodec.merging.methods.iso_c import IsoC
from dtscodec.merging.methods.iso_cts import IsoCts
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.merging.methods.registry import METHODS, make_method, method_class
from dtscodec.merging.methods.task_arithmetic import TaskArithmetic
from dtscodec.merging.methods.ties import Ties
from dtscodec.merging.methods.tsv_m import TsvM
from tests.merging import naive
from tests.merging.models import assert_close, base_state, merged, normal, task_state, task_states, wide

WITH_BASE = [name for name in METHODS if name != "average"]


def test_average(tmp_path: Path) -> None:
    states = task_states()
    assert_close(merged(states, "average", tmp_path, None), naive.average([wide(state) for state in states]))


def test_task_arithmetic(tmp_path: Path) -> None:
    states, base = task_states(), base_state()
    theirs = naive.task_arithmetic(wide(base), [wide(state) for state in states], 0.4)
    assert_close(merged(states, TaskArithmetic(0.4), tmp_path, base), theirs)


def test_task_arithmetic_by_one_over_the_number_of_tasks_is_the_average(tmp_path: Path) -> None:
    states, base = task_states(4), base_state()
    assert_close(merged(states, TaskArithmetic(1 / 4), tmp_path, base), merged(states, "average", tmp_path, None))


@pytest.mark.parametrize("combine", ["mean", "sum"])
@pytest.mark.parametrize("keep", [0.2, 0.51, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_ties(tmp_path: Path, count: int, keep: float, combine: str) -> None:
    # Coarse moves: many are equal, and many sums are zero.
    base = base_state()
    states = [
        {name: value + (task_state(task)[name] - value).mul(16).round() / 16 for name, value in base.items()}
        for task in range(count)
    ]
    base = {name: value.mul(2**10).round() / 2**10 for name, value in base.items()}
    states = [{name: value.mul(2**10).round() / 2**10 for name, value in state.items()} for state in states]
    method = make_method("ties", {"keep": keep, "combine": combine, "alpha": 0.7})
    theirs = naive.ties(wide(base), [wide(state) for state in states], 0.7, keep, combine)
    assert_close(merged(states, method, tmp_path, base), theirs)


@pytest.mark.parametrize(
    ("method", "fuse"), [(TsvM(0.9), naive.tsv), (IsoC(0.9), naive.iso_c), (IsoCts(0.9), naive.iso_cts)]
)
@pytest.mark.parametrize("count", [2, 3])
def test_methods_of_singular_vectors(tmp_path: Path, method: MergeMethod, fuse: object, count: int) -> None:
    states, base = task_states(count), base_state()
    theirs = naive.by_matrix(wide(base), [wide(state) for state in states], 0.9, fuse)  # type: ignore[arg-type]
    assert_close(merged(states, method, tmp_path, base), theirs)


def test_iso_cts_with_few_common_directions(tmp_path: Path) -> None:
    states, base = task_states(), base_state()
    fuse = lambda deltas: naive.iso_cts(deltas, 0.4)  # noqa: E731
    theirs = naive.by_matrix(wide(base), [wide(state) for state in states], 1.0, fuse)
    assert_close(merged(states, IsoCts(common=0.4), tmp_path, base), theirs)


SWITCHES = [
    {},
    {"task_scaling": False},
    {"dimension_scaling": False},
    {"energy_scaling": True},
    {"orthogonal": False},
    {"task_scaling": False, "dimension_scaling": False, "energy_scaling": True},
    {"alpha_everywhere": True},
]
KEYWORDS = {"task_scaling": "by_task", "dimension_scaling": "by_dimension", "energy_scaling": "by_energy"}


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("with_layers", [False, True])
@pytest.mark.parametrize("with_inputs", [False, True])
def test_esm(tmp_path: Path, with_inputs: bool, with_layers: bool, switches: dict[str, bool]) -> None:
    states, base = task_states(), base_state()
    inputs: dict[str, Any] = {}
    files: list[Path] = []
    if with_inputs:
        inputs, files = inputs_of(len(states), tmp_path)
    method = Esm(alpha=0.5, damping=0.0, layer_scaling=with_layers, **switches)
    ours = merged(states, method, tmp_path, base, grams=files)
    known = {KEYWORDS.get(name, name): value for name, value in switches.items() if name != "alpha_everywhere"}
    moves = naive.task_vectors(wide(base), [wide(state) for state in states])
    fused: naive.Model = {
        name: naive.esm([move[name] for move in moves], inputs.get(name), **known)
        for name, value in base.items()
        if value.ndim == 2
    }
    up = [np.linalg.norm(fused[f"layer.{i}.up.weight"]) for i in (0, 1)]
    for i in (0, 1) if with_layers else ():
        fused[f"layer.{i}.up.weight"] *= (up[i] / np.mean(up)) ** 2
    mean = {name: np.mean([move[name] for move in moves], axis=0) for name in base}
    scaled = base if switches.get("alpha_everywhere") else inputs or fused
    alpha = {name: 0.5 if name in scaled else 1.0 for name in base}
    theirs = {name: value + alpha[name] * (mean | fused)[name] for name, value in wide(base).items()}
    # Gram matrices are stored in float32.
    assert_close(ours, theirs, 2e-4 if with_inputs else 2e-6)


def inputs_of(tasks: int, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Inputs of two of the layers for each task, [rows, d_in], and files of their Gram matrices."""
    sizes = {"layer.0.up.weight": 12, "layer.0.down.weight": 24}
    spread = {name: torch.linspace(0.5, 2, size) for name, size in sizes.items()}
    inputs = {n: [normal(task + size, 200, size) * spread[n] for task in range(tasks)] for n, size in sizes.items()}
    files = []
    for task in range(tasks):
        grams = {name: Gram((x[task].double().T @ x[task].double()) / 200, None, 200) for name, x in inputs.items()}
        files.append(folder / f"grams-{task}.safetensors")
        save_grams(files[-1], GramSet(grams))
    return {name: [x.double().numpy() for x in found] for name, found in inputs.items()}, files


def test_layers_are_scaled_among_those_whose_names_differ_in_numbers_only() -> None:
    norms = {"h.0.a": 1.0, "h.1.a": 3.0, "h.0.b": 9.0, "h.1.b": 0.0, "z": 0.0}
    assert relative_squares_by_kind(norms) == {"h.0.a": 0.25, "h.1.a": 2.25, "h.0.b": 4.0, "h.1.b": 0.0, "z": 1.0}


@pytest.mark.parametrize("method", WITH_BASE)
def test_fine_tunes_that_did_not_move_give_the_base_bit_for_bit(tmp_path: Path, method: str) -> None:
    base = base_state()
    ours = merged([base, base], method, tmp_path, base)
    assert all(np.array_equal(ours[name], value) for name, value in wide(base).items())


@pytest.mark.parametrize("method", WITH_BASE)
def test_one_task_that_did_not_move_takes_nothing_from_finite_numbers(tmp_path: Path, method: str) -> None:
    ours = merged([task_state(1), base_state()], method, tmp_path, base_state())
    assert all(np.isfinite(value).all() for value in ours.values())


@pytest.mark.parametrize("method", WITH_BASE)
def test_opposite_task_vectors_sum_to_the_base(tmp_path: Path, method: str) -> None:
    base = {name: value.mul(2**8).round() / 2**8 for name, value in base_state().items()}
    move = {name: normal(5, *value.shape).mul(2**8).round() / 2**8 for name, value in base.items()}
    there, back = ({name: value + sign * move[name] for name, value in base.items()} for sign in (1, -1))
    ours = merged([there, back], method, tmp_path, base)
    assert all(np.isfinite(value).all() for value in ours.values())
    if method in ("task-arithmetic", "ties", "iso-c"):
        assert all(np.array_equal(ours[name], value) for name, value in wide(base).items())


def test_duplicates_merge_to_what_one_of_them_gives(tmp_path: Path) -> None:
    base, state = base_state(), task_state(1)
    assert_close(merged([state, state], "ties", tmp_path, base), merged([state], "ties", tmp_path, base))
    average = merged([state, state, state], "average", tmp_path, None)
    assert all(np.array_equal(average[name], value) for name, value in wide(state).items())
    # TSV-M: the leading half of the directions, at their own values.
    ours = merged([state, state], "tsv-m", tmp_path, base)
    name = "layer.0.up.weight"
    u, s, v = naive.svd(wide(state)[name] - wide(base)[name])
    assert np.abs(ours[name] - wide(base)[name] - (u[:, :6] * s[:6]) @ v[:6]).max() < 2e-6


def test_iso_c_leaves_directions_of_mere_rounding_alone(tmp_path: Path) -> None:
    base = {"w": normal(1, 64, 48)}
    move = normal(2, 64, 2) @ normal(3, 2, 48)
    ours = merged([{"w": base["w"] + move}, {"w": base["w"] + 2 * move}], "iso-c", tmp_path, base)
    singular = np.linalg.svd(ours["w"] - wide(base)["w"], compute_uv=False)
    expected = 3 * np.linalg.svd(move.double().numpy(), compute_uv=False)[:2].mean()
    assert np.abs(singular[:2] - expected).max() < 1e-4 * expected
    assert singular[2:].max() < 1e-5 * expected


@pytest.mark.parametrize("method", ["tsv-m", "iso-c", "iso-cts", "esm"])
def test_stacks_of_experts_merge_matrix_by_matrix(tmp_path: Path, method: str) -> None:
    base = {"experts": normal(1, 2, 32, 33)}
    tasks = [{"experts": base["experts"] + normal(2 + task, 2, 32, 33, scale=0.1)} for task in range(2)]
    ours = merged(tasks, method, tmp_path, base)["experts"]
    for at in range(2):
        alone = merged([{"w": task["experts"][at]} for task in tasks], method, tmp_path, {"w": base["experts"][at]})
        assert np.array_equal(ours[at], alone["w"])


@pytest.mark.parametrize("method", WITH_BASE)
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (2, 2), (), (0, 4), (1,)])
def test_any_shape_merges(tmp_path: Path, method: str, shape: tuple[int, ...]) -> None:
    base = {"w": normal(1, *shape), "rest": normal(2, 8, 8)}
    tasks = [{name: value + normal(3 + task, *value.shape) for name, value in base.items()} for task in range(3)]
    ours = merged(tasks, method, tmp_path, base)
    assert ours["w"].shape == shape
    assert np.isfinite(ours["w"]).all()


def test_a_threshold_of_the_whole_model_not_of_each_tensor(tmp_path: Path) -> None:
    base = {"large": torch.zeros(10), "small": torch.zeros(10)}
    state = {"large": torch.full((10,), 1.0), "small": torch.full((10,), 0.1)}
    ours = merged([state], Ties(keep=0.25), tmp_path, base)
    assert np.array_equal(ours["large"], np.ones(10))
    assert np.array_equal(ours["small"], np.zeros(10))


def test_every_file_of_a_method_is_imported_by_the_package_under_the_name_that_its_class_has() -> None:
    from dtscodec.merging import methods

    folder = Path(methods.__path__[0])
    helpers = {"__init__", "method", "registry", "threshold"}
    assert {module for module, _ in METHODS.values()} == {path.stem for path in folder.glob("*.py")} - helpers
    for name, (_, class_name) in METHODS.items():
        assert getattr(methods, class_name) is method_class(name)
        assert method_class(name).name == name
    with pytest.raises(AttributeError, match="Nonsense"):
        methods.Nonsense  # noqa: B018
