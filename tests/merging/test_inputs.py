"""Which tensors merge, and what is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dtscodec
from dtscodec.activations.gram_file import Gram, GramSet, save_grams
from dtscodec.errors import BaseMismatchError, ConfigError, DtsError, MergeError, OutputError
from dtscodec.merging.alpha_search import AlphaSearch
from dtscodec.merging.merge import MergeReport
from dtscodec.merging.methods.esm import Esm
from dtscodec.merging.methods.registry import METHODS, make_method
from tests.merging.models import State, base_state, normal, task_state, task_states


def merge(tmp_path: Path, states: list[State], *arguments: object, **more: object) -> MergeReport:
    return dtscodec.merge(states, tmp_path / "merged.safetensors", *arguments, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_heads_are_left_out_integers_copied_and_what_the_base_lacks_averaged(tmp_path: Path, method: str) -> None:
    states = [
        state | {"head": normal(1, 2 + at, 12), "pooler": normal(at, 3), "steps": torch.tensor([at + 7])}
        for at, state in enumerate(task_states(2))
    ]
    states[1]["extra"] = normal(5, 2)
    report = merge(tmp_path, states, method, base_state() | {"steps": torch.tensor([1]), "unused": normal(3, 4)})
    assert report.left_out == {"extra": "not in every fine-tune", "head": "shapes differ"}
    assert report.copied == ("steps",)
    assert report.averaged == ("pooler",)
    assert report.merged == tuple(sorted(base_state()))
    written = load_file(report.path)
    assert sorted(written) == sorted([*base_state(), "pooler", "steps"])
    assert written["steps"].tolist() == [7]
    assert torch.allclose(written["pooler"], (states[0]["pooler"] + states[1]["pooler"]) / 2)
    assert report.size == sum(tensor.nbytes for tensor in written.values())


def test_patterns_leave_out_more(tmp_path: Path) -> None:
    report = merge(tmp_path, task_states(2), raw=("conv*",))
    assert report.left_out == {"conv.weight": "as asked"}
    with pytest.raises(ConfigError):
        merge(tmp_path, task_states(2), raw=("cnov*",), force=True)


def test_names_that_differ_by_a_prefix_are_matched(tmp_path: Path) -> None:
    first, second = task_states(2)
    prefixed = {f"model.{name}": value for name, value in first.items()}
    expected = load_file(merge(tmp_path, [first, second], "ties", base_state()).path)
    ours = load_file(merge(tmp_path, [prefixed, second], "ties", base_state(), force=True).path)
    assert ours.keys() == prefixed.keys()
    assert all(torch.equal(ours[f"model.{name}"], value) for name, value in expected.items())
    base = {f"encoder.{name}": value for name, value in base_state().items()}
    ours = load_file(merge(tmp_path, [first, prefixed, prefixed], "ties", base, force=True).path)
    assert ours.keys() == first.keys()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_result_has_the_fine_tunes_dtype(tmp_path: Path, method: str, dtype: torch.dtype) -> None:
    states = [task_state(task, 0.1, dtype) for task in range(2)]
    report = merge(tmp_path, states, method, base_state())
    assert {value.dtype for value in load_file(report.path).values()} == {dtype}


def test_of_several_dtypes_it_has_one_that_holds_all(tmp_path: Path) -> None:
    states = [task_state(0, 0.1, torch.bfloat16), task_state(1, 0.1, torch.float16)]
    report = merge(tmp_path, states, "average")
    assert {value.dtype for value in load_file(report.path).values()} == {torch.float32}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path, method: str, value: float) -> None:
    states = task_states(2)
    states[1]["layer.0.bias"][3] = value
    with pytest.raises(DtsError, match=r"layer\.0\.bias"):
        merge(tmp_path, states, method, base_state())
    assert not list(tmp_path.iterdir())
    merge(tmp_path, states, method, base_state(), raw=("layer.0.bias",))


@pytest.mark.parametrize("method", ["esm", "iso-cts"])
def test_merged_weights_that_the_dtype_does_not_hold_are_refused_by_name(tmp_path: Path, method: str) -> None:
    base = {"small": normal(1, 24, 12).half(), "large": torch.full((24, 12), 65000.0, dtype=torch.float16)}
    fine = {"small": base["small"] + normal(2, 24, 12).half(), "large": -base["large"]}
    fine["large"][:12] = 100
    with pytest.raises(MergeError, match=r"^large: expected finite merged weights in F16, got infinity or NaN; choose"):
        merge(tmp_path, [fine], make_method(method, {"alpha": 10.0}), base)
    assert not list(tmp_path.iterdir())
    merge(tmp_path, [fine], make_method(method, {"alpha": 10.0}), base, raw=("large",))


@pytest.mark.parametrize("alpha", [1e39, 1e300])
def test_a_search_of_too_large_an_alpha_is_refused(tmp_path: Path, alpha: float) -> None:
    search = AlphaSearch(lambda weights: float(weights["layer.0.bias"].sum()), low=alpha, high=2 * alpha)
    with pytest.raises(MergeError, match="choose a smaller `alpha`"):
        merge(tmp_path, task_states(2), "task-arithmetic", base_state(), search=search)
    assert not list(tmp_path.iterdir())


def test_what_did_not_move_stays_whatever_alpha_is(tmp_path: Path) -> None:
    report = merge(tmp_path, [base_state()], make_method("task-arithmetic", {"alpha": 1e300}), base_state())
    assert all(torch.equal(value, base_state()[name]) for name, value in load_file(report.path).items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_average_of_the_largest_weights_is_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {"w": torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype)}
    assert torch.equal(load_file(merge(tmp_path, [state] * 3).path)["w"], state["w"])


def test_fine_tunes_of_different_architectures_are_refused(tmp_path: Path) -> None:
    other = {f"h.{at}": normal(at, 5, 5) for at in range(4)}
    with pytest.raises(MergeError, match="expected the architecture of"):
        merge(tmp_path, [task_state(0), other])
    with pytest.raises(BaseMismatchError):
        merge(tmp_path, task_states(2), "ties", other)


def test_one_fine_tune_has_no_average_but_a_task_vector(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="at least 2 fine-tunes, got 1"):
        merge(tmp_path, [task_state(0)])
    with pytest.raises(MergeError, match="at least 1 fine-tune, got 0"):
        merge(tmp_path, [], "ties", base_state())
    merge(tmp_path, [task_state(0)], "task-arithmetic", base_state())


@pytest.mark.parametrize("method", [name for name in METHODS if name != "average"])
def test_all_but_the_average_need_the_base_and_say_so(tmp_path: Path, method: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{method}: expected the base of the fine-tunes, got none")):
        merge(tmp_path, task_states(2), method)


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="none that all fine-tunes share"):
        merge(tmp_path, [{"n": torch.tensor([1])}, {"n": torch.tensor([1])}])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nonsense", {}),
        ("average", {"alpha": 1.0}),
        ("ties", {"common": 0.5}),
        ("ties", {"keep": 0.0}),
        ("ties", {"keep": 1.5}),
        ("ties", {"combine": "max"}),
        ("iso-cts", {"common": 0.0}),
        ("esm", {"damping": -1.0}),
        ("tsv-m", {"alpha": float("nan")}),
        ("tsv-m", {"alpha": "much"}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        make_method(name, options)


def test_gram_matrices_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "grams.safetensors"
    save_grams(path, GramSet({"layer.0.up.weight": Gram(torch.eye(11, dtype=torch.float64))}))
    for arguments, grams in ((("esm", base_state()), [path]), (("ties", base_state()), [path, path])):
        with pytest.raises(ConfigError):
            merge(tmp_path, task_states(2), *arguments, grams=grams)
    with pytest.raises(MergeError, match="expected a Gram matrix of 12 inputs, got one of 11"):
        merge(tmp_path, task_states(2), "esm", base_state(), grams=[path, path])


def test_the_report_lists_matrices_without_gram_matrices(tmp_path: Path) -> None:
    path = tmp_path / "grams.safetensors"
    save_grams(path, GramSet({"layer.0.up.weight": Gram(torch.eye(12, dtype=torch.float64))}))
    report = merge(tmp_path, task_states(2), Esm(), base_state(), grams=[path, path])
    assert report.without_grams == ("layer.0.down.weight", "layer.1.up.weight")


# Output


def test_how_it_was_made_is_recorded(tmp_path: Path) -> None:
    report = merge(tmp_path, task_states(2), "ties", base_state())
    with safe_open(report.path, "pt") as file:
        assert file.metadata() == {"dtscodec_merge": "ties alpha=1.0 keep=0.2 combine=mean"}


def test_an_output_is_replaced_only_if_asked_and_never_an_input(tmp_path: Path) -> None:
    save_file(task_state(0), tmp_path / "a.safetensors")
    (tmp_path / "merged.safetensors").write_text("mine")
    sources: list[Any] = [tmp_path / "a.safetensors", task_state(1)]
    with pytest.raises(OutputError):
        merge(tmp_path, sources)
    assert (tmp_path / "merged.safetensors").read_text() == "mine"
    with pytest.raises(OutputError):
        dtscodec.merge(sources, tmp_path / "a.safetensors", force=True)
    merge(tmp_path, sources, force=True)


def test_a_directory_gets_the_first_fine_tunes_small_files_and_shards(tmp_path: Path) -> None:
    for task in range(2):
        folder = tmp_path / f"task{task}"
        folder.mkdir()
        save_file(task_state(task), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(f'{{"task": {task}}}')
    sources = [tmp_path / "task0", tmp_path / "task1"]
    dtscodec.merge(sources, tmp_path / "out", shard_bytes=2000)
    assert (tmp_path / "out/config.json").read_text() == '{"task": 0}'
    assert (tmp_path / "out/model.safetensors.index.json").is_file()
    dtscodec.merge(sources, tmp_path / "bare", files=False)
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["model.safetensors"]


def test_tensors_that_share_memory_in_all_fine_tunes_stay_one(tmp_path: Path) -> None:
    states = task_states(2)
    for state in states:
        state["tied"] = state["layer.0.up.weight"]
    out = tmp_path / "merged.bin"
    dtscodec.merge(states, out, "ties", base_state())
    written = torch.load(out)
    assert written["tied"].data_ptr() == written["layer.0.up.weight"].data_ptr()


def test_distances_are_those_of_what_was_written(tmp_path: Path) -> None:
    states, base = task_states(3), base_state()
    report = merge(tmp_path, states, "ties", base)
    written = load_file(report.path)
    mean = {name: sum(state[name].double() for state in states) / 3 for name in base}
    for state, found in zip(states, report.distances, strict=True):
        for other, norm in ((written, found.merged), (mean, found.average), (base, found.pretrained)):
            squares = sum(float((state[name].double() - other[name]).square().sum()) for name in base)
            assert norm == pytest.approx(squares**0.5, rel=1e-6)
    unknown = merge(tmp_path, states, "average", force=True)
    assert all(found.pretrained is None and found.ratio is None for found in unknown.distances)
    assert np.isclose(unknown.distances[0].merged, unknown.distances[0].average)


@pytest.mark.parametrize("method", METHODS)
def test_progress_counts_every_read_of_the_fine_tunes(tmp_path: Path, method: str) -> None:
    seen: list[int] = []
    states = task_states(2)
    merge(tmp_path, states, method, base_state(), progress=seen.append)
    total = 2 * sum(value.nbytes for value in states[0].values())
    assert sum(seen) == total * make_method(method).reads


def test_scales_of_quantized_weights_are_copied_with_them(tmp_path: Path) -> None:
    def model(scale: float) -> State:
        codes = torch.full((8, 8), round(3 / scale), dtype=torch.int8)
        return {"fc.weight": codes, "fc.weight_scale": torch.full((8, 1), scale), "fc.bias": torch.full((8,), scale)}

    one, two = model(0.5), model(0.25)
    report = merge(tmp_path, [one, two], "average")
    merged = load_file(report.path)
    assert torch.equal(merged["fc.weight"].float() * merged["fc.weight_scale"], torch.full((8, 8), 3.0))
    assert torch.equal(merged["fc.bias"], torch.full((8,), 0.375))


def test_weights_beside_those_that_are_merged_are_passed_over_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.ones(2)}, tmp_path / name / "model.safetensors")
    (tmp_path / "b/pytorch_model.bin").write_bytes(b"?")
    report = dtscodec.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    (note,) = report.notes
    assert note.names == ("pytorch_model.bin",)
    assert f"the fine-tune {tmp_path / 'b'} was read from model.safetensors" in note.text


@pytest.mark.parametrize("place", ["base", "second"])
def test_experts_of_another_layout_are_refused(tmp_path: Path, place: str) -> None:
    """They were averaged, or left out, whatever the method."""
    split = {
        f"mlp.experts.{e}.{x}_proj.weight": torch.randn((8, 16) if x == "down" else (16, 8))
        for e in range(2)
        for x in ("gate", "up", "down")
    } | {"embed.weight": torch.randn(99, 8)}
    matrices = {
        x: torch.stack([split[f"mlp.experts.{e}.{x}_proj.weight"] for e in (0, 1)]) for x in ("gate", "up", "down")
    }
    fused = {
        "embed.weight": split["embed.weight"],
        "mlp.experts.gate_up_proj": torch.cat([matrices["gate"], matrices["up"]], 1),
        "mlp.experts.down_proj": matrices["down"],
    }
    fine_tunes, base = ([fused, fused], split) if place == "base" else ([fused, split], fused)
    with pytest.raises(MergeError, match=r"expected experts in the layout of .*save_pretrained"):
        merge(tmp_path, fine_tunes, "task-arithmetic", base)
