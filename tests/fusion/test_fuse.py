"""A fused pack is the weighted sum of the packs' decoded deltas, for every kind of block."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import dtscodec
from dtscodec.errors import BaseMismatchError, ConfigError, EncodeError, OutputError
from dtscodec.format.blocks import Same
from dtscodec.fusion.fuse import FuseReport
from dtscodec.packs.byte_counts import tensor_sizes
from tests.support import check_against_spec, make_pack

State = dict[str, Tensor]

WIDTH = 48
AMPLE = dtscodec.Size.parse("1MB")


def base_state() -> State:
    """An embedding, matrices, a stack of experts, a convolution, a norm, a bias, and a counter."""
    random = torch.Generator().manual_seed(0)
    shapes = {
        "embedding.weight": (300, WIDTH),
        "layer.query.weight": (WIDTH, WIDTH),
        "layer.query.bias": (WIDTH,),
        "layer.up.weight": (96, WIDTH),
        "layer.norm.weight": (WIDTH,),
        "experts.weight": (3, 40, 36),
        "conv.weight": (16, 4, 3),
        "still.weight": (20, 20),
    }
    state = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return state | {"steps": torch.tensor([3])}


def fine_state(seed: int, scale: float = 0.05, rank: int = 4) -> State:
    """A fine-tune of it: low-rank changes and small ones, some rows of the embedding, and a head of its own."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return scale * torch.randn(shape, generator=random)

    fine = {name: tensor.clone() for name, tensor in base_state().items()}
    for name in ("layer.query.weight", "layer.up.weight"):
        rows, columns = fine[name].shape
        fine[name] += normal(rows, rank) @ torch.randn(rank, columns, generator=random)
    fine["embedding.weight"][20 * seed : 20 * seed + 40] += normal(40, WIDTH)
    fine["experts.weight"][seed % 3] += normal(40, 2) @ torch.randn(2, 36, generator=random)
    for name in ("layer.query.bias", "layer.norm.weight", "conv.weight"):
        fine[name] += normal(*fine[name].shape)
    fine["classifier.weight"] = torch.randn(2, WIDTH, generator=random)
    fine["classifier.bias"] = torch.randn(2, generator=random)
    return fine


def head_of(state: Mapping[str, Tensor]) -> State:
    return {name: tensor for name, tensor in state.items() if name.startswith("classifier")}


def packs_of(folder: Path, fines: Sequence[State], base: State | None = None, **config: Any) -> list[Path]:
    config = config or {"target": dtscodec.RankShare(0.5)}
    return [
        make_pack(base or base_state(), fine, folder / f"{i}.safetensors", **config).path
        for i, fine in enumerate(fines)
    ]


def fuse(folder: Path, packs: Sequence[Any], against: State | None = None, **options: Any) -> FuseReport:
    """Fuse, and check the pack with the spec's decoder."""
    report = dtscodec.fuse(packs, folder / "fused.safetensors", force=True, **options)
    check_against_spec(report.path, against or base_state())
    return report


def decoded(path: Path, base: State | None = None) -> State:
    with dtscodec.decode(path, base or base_state()) as state:
        return dict(state)


def weighted(packs: Sequence[Path], weights: Sequence[float], base: State | None = None) -> State:
    """What the decoded fine-tunes add up to, as deltas from the base that each is multiplied by its weight."""
    base = base or base_state()
    states, total = [decoded(path, base) for path in packs], {}
    for name, tensor in base.items():
        if tensor.is_floating_point():
            deltas = torch.stack([state[name].double() - tensor.double() for state in states])
            total[name] = torch.tensordot(torch.tensor(weights, dtype=torch.float64), deltas, 1)
    return total


def error_to(path: Path, expected: State, base: State | None = None) -> float:
    """Relative error of a pack's delta."""
    base, state = base or base_state(), decoded(path, base)
    off = [state[name].double() - base[name].double() - delta for name, delta in expected.items()]
    return norm(off) / norm(list(expected.values()))


def norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.cat([tensor.reshape(-1) for tensor in tensors]).norm())


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (1.0, 1.0, 1.0), (0.7, -0.4, 0.0)])
@pytest.mark.parametrize(
    "config",
    [
        {"target": dtscodec.RankShare(0.5)},
        {"preset": dtscodec.Paper()},
        {"target": AMPLE},
        {"target": dtscodec.MaxError(0.3)},
    ],
    ids=str,
)
def test_it_equals_the_weighted_sum_of_decoded_deltas(
    config: dict[str, Any], weights: tuple[float, ...], tmp_path: Path
) -> None:
    packs = packs_of(tmp_path, [fine_state(seed) for seed in (1, 2, 3)], **config)
    report = fuse(tmp_path, packs, weights=weights, like=head_of(fine_state(9)), base=base_state(), target=AMPLE)
    expected = weighted(packs, weights)
    assert error_to(report.path, expected) < 2e-3
    assert report.relative_error < 2e-3
    assert report.weights == weights
    assert (report.path.stat().st_size, report.tensors) == (report.pack_bytes, 11)


@pytest.mark.parametrize("size", ["12kB", "25kB", "100kB"])
def test_within_the_error_of_its_budget_which_is_reported(size: str, tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [fine_state(seed) for seed in (1, 2)], target=dtscodec.RankShare(0.5))
    like = head_of(fine_state(9))
    report = fuse(tmp_path, packs, weights=[0.6, 0.4], like=like, target=dtscodec.Size.parse(size), base=base_state())
    assert report.pack_bytes <= dtscodec.Size.parse(size).amount
    assert report.relative_error == pytest.approx(error_to(report.path, weighted(packs, [0.6, 0.4])), rel=0.01)


def test_a_larger_size_is_closer_and_an_error_may_be_asked_for(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [fine_state(seed) for seed in (1, 2)])
    options: dict[str, Any] = {"weights": [0.5, 0.5], "like": head_of(fine_state(9)), "base": base_state()}
    errors = [
        fuse(tmp_path, packs, target=dtscodec.Size.parse(size), **options).relative_error for size in ("8kB", "20kB")
    ]
    assert errors[1] < errors[0] < 1
    report = fuse(tmp_path, packs, target=dtscodec.MaxError(0.25), **options)
    assert 0.2 < report.relative_error <= 0.25
    assert error_to(report.path, weighted(packs, [0.5, 0.5])) <= 0.251


CONFIGS: list[dict[str, Any]] = [
    {"target": dtscodec.RankShare(0.5)},
    {"target": dtscodec.Rank(3)},
    {"preset": dtscodec.Paper()},
    {"target": AMPLE},
    {"target": dtscodec.MaxError(0.2)},
]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_shapes_rows_columns_and_bands(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    base = {"w": torch.from_numpy(rng.standard_normal((rows, columns))).float()}
    fines = []
    for _ in range(data.draw(st.integers(1, 3))):
        delta = 0.1 * rng.standard_normal((rows, columns))
        delta *= rng.random((rows, 1)) < data.draw(st.sampled_from([1.0, 0.5, 0.1]))
        delta *= rng.random((1, columns)) < data.draw(st.sampled_from([1.0, 0.6]))
        fines.append({"w": base["w"] + torch.from_numpy(delta).float()})
    weights = [data.draw(st.sampled_from([0.25, 0.5, 1.0, -0.5])) for _ in fines]
    config = data.draw(st.sampled_from(CONFIGS))
    with tempfile.TemporaryDirectory() as folder:
        packs = packs_of(Path(folder), fines, base, **config)
        report = fuse(Path(folder), packs, base, weights=weights, base=base, target=AMPLE)
        expected = weighted(packs, weights, base)["w"]
        reach = sum(norm([decoded(path, base)["w"] - base["w"]]) for path in packs)
        got = decoded(report.path, base)["w"].double() - base["w"].double()
    assert norm([got - expected]) <= 2e-3 * reach + 1e-6 * norm([base["w"]])


def test_lossless_packs_give_the_mean_of_fine_tunes_for_any_base(tmp_path: Path) -> None:
    """E.10: with weights that add up to 1 the base does not matter."""
    fines = [{name: tensor for name, tensor in fine_state(seed).items() if name != "steps"} for seed in (1, 2)]
    fines = [{name: tensor for name, tensor in fine.items() if not name.startswith("classifier")} for fine in fines]
    mean = {name: 0.25 * fines[0][name] + 0.75 * fines[1][name] for name in fines[0]}
    average = {name: (fines[0][name] + fines[1][name]) / 2 for name in fines[0]}
    shifted = {name: tensor + 0.01 for name, tensor in average.items()}
    for i, base in enumerate((average, shifted, {name: base_state()[name] for name in average})):
        folder = tmp_path / str(i)
        folder.mkdir()
        packs = packs_of(folder, fines, base, target=AMPLE)
        report = fuse(folder, packs, base, weights=[0.25, 0.75], base=base, target=AMPLE)
        state = decoded(report.path, base)
        for name, tensor in mean.items():
            scale = max(float((fine[name] - base[name]).norm()) for fine in fines)
            assert float((state[name] - tensor).norm()) <= 2e-3 * scale + 1e-5, (i, name)


def test_one_pack_of_weight_1_stays_what_it_is(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [fine_state(1)])
    report = fuse(tmp_path, packs, weights=[1.0], target=AMPLE)
    assert error_to(report.path, weighted(packs, [1.0])) < 2e-3
    ours, theirs = decoded(report.path), decoded(packs[0])
    assert all(torch.equal(ours[name], theirs[name]) for name in head_of(theirs))
    assert torch.equal(ours["still.weight"], base_state()["still.weight"])


def test_duplicates_add_up(tmp_path: Path) -> None:
    (pack,) = packs_of(tmp_path, [fine_state(1)])
    both = fuse(tmp_path, [pack, pack], weights=[0.5, 0.5], target=AMPLE)
    assert error_to(both.path, weighted([pack], [1.0])) < 2e-3
    data = both.path.read_bytes()
    halves = [fuse(tmp_path, [pack, pack, pack], weights=[0.25, 0.25, 0.5], target=AMPLE)]
    assert abs(halves[0].pack_bytes - len(data)) < 100


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}


def test_opposite_deltas_leave_the_base(tmp_path: Path) -> None:
    base = {name: torch.zeros_like(tensor) for name, tensor in base_state().items()}
    plus = {name: body(fine_state(1))[name] - tensor for name, tensor in base_state().items()}
    minus = {name: -tensor for name, tensor in plus.items()}
    packs = packs_of(tmp_path, [plus, minus], base, target=AMPLE)
    report = fuse(tmp_path, packs, base, weights=[0.5, 0.5], target=AMPLE, base=base)
    with dtscodec.open(report.path) as fused:
        assert {size.kind for size in tensor_sizes(fused)} == {"same"}
    assert report.pack_bytes < 1500


def test_the_same_pack_against_itself_takes_no_bytes(tmp_path: Path) -> None:
    (pack,) = packs_of(tmp_path, [body(fine_state(1))])
    report = fuse(tmp_path, [pack, pack], weights=[1.0, -1.0], base=base_state())
    with dtscodec.open(report.path) as fused:
        assert all(isinstance(block, Same) for entry in fused.index.tensors for block in entry.blocks)
    assert report.relative_error == 0
    assert report.pack_bytes < 1500


def test_deltas_of_zero_leave_the_base(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [base_state(), base_state()])
    report = fuse(tmp_path, packs, weights=[0.5, 0.5])
    with dtscodec.open(report.path) as fused, dtscodec.open(packs[0]) as first:
        assert fused.summary.base == first.summary.base
        assert {size.kind for size in tensor_sizes(fused)} == {"same"}
    assert (report.relative_error, report.left_out) == (0, 0)


def test_a_pack_of_no_change_counts_nothing(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(1)), base_state()])
    report = fuse(tmp_path, packs, weights=[0.5, 0.5], target=AMPLE, base=base_state())
    assert error_to(report.path, weighted(packs[:1], [0.5])) < 2e-3


def test_factors_are_enough_where_packs_use_the_same_of_the_base(tmp_path: Path) -> None:
    """Norms, matrices and kept tensors: the base is not there, and not missed."""
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    report = fuse(tmp_path, packs, weights=[0.5, 0.5], target=AMPLE)
    with dtscodec.open(report.path) as fused, dtscodec.open(packs[0]) as first:
        assert fused.summary.base == first.summary.base
        assert fused.reader.leaves == first.reader.leaves
    assert error_to(report.path, weighted(packs, [0.5, 0.5])) < 2e-3


def test_exact_tensors_become_deltas_and_need_the_base(tmp_path: Path) -> None:
    packs = packs_of(
        tmp_path, [body(fine_state(1)), body(fine_state(2))], target=dtscodec.RankShare(0.5), raw=("layer.*",)
    )
    with pytest.raises(EncodeError, match=r"layer\.norm\.weight: .* `base`"):
        fuse(tmp_path, packs, weights=[0.5, 0.5])
    report = fuse(tmp_path, packs, weights=[0.5, 0.5], base=base_state(), target=AMPLE)
    assert error_to(report.path, weighted(packs, [0.5, 0.5])) < 2e-3
    other = make_pack(
        base_state(), body(fine_state(2)), tmp_path / "coded.safetensors", target=dtscodec.RankShare(0.5)
    ).path
    with pytest.raises(BaseMismatchError, match="expected the base"):
        fuse(tmp_path, [packs[0], other], weights=[0.5, 0.5])
    report = fuse(tmp_path, [packs[0], other], weights=[0.5, 0.5], base=base_state(), target=AMPLE)
    assert error_to(report.path, weighted([packs[0], other], [0.5, 0.5])) < 2e-3


def test_a_wrong_base_is_refused(tmp_path: Path) -> None:
    packs = packs_of(
        tmp_path, [body(fine_state(1)), body(fine_state(2))], target=dtscodec.RankShare(0.5), raw=("layer.*",)
    )
    wrong = base_state() | {"embedding.weight": torch.zeros(300, WIDTH)}
    with pytest.raises(BaseMismatchError) as caught:
        fuse(tmp_path, packs, weights=[0.5, 0.5], base=wrong)
    assert caught.value.reason == "base-leaf"


def test_packs_of_several_bases_are_refused(tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in base_state().items()}
    one = make_pack(base_state(), body(fine_state(1)), tmp_path / "one", target=dtscodec.Rank(4)).path
    two = make_pack(
        other, {n: t + 1 for n, t in body(fine_state(1)).items()}, tmp_path / "two", target=dtscodec.Rank(4)
    ).path
    with pytest.raises(BaseMismatchError, match=r"expected packs of one base, got one of .* and .*one of ") as caught:
        dtscodec.fuse([one, two], tmp_path / "out", weights=[0.5, 0.5])
    assert caught.value.reason == "base-digest"
    assert "two" in caught.value.where
    assert not (tmp_path / "out").exists()


def test_packs_of_several_architectures_are_refused(tmp_path: Path) -> None:
    short = {name: tensor for name, tensor in body(fine_state(2)).items() if name != "layer.up.weight"}
    packs = packs_of(tmp_path, [body(fine_state(1)), short])
    with pytest.raises(EncodeError, match=r"layer\.up\.weight: expected packs of one architecture"):
        dtscodec.fuse(packs, tmp_path / "out", weights=[0.5, 0.5])
    grown = body(fine_state(2))
    grown["embedding.weight"] = torch.cat([grown["embedding.weight"], torch.randn(3, WIDTH)])
    packs[1] = make_pack(base_state(), grown, tmp_path / "grown", target=dtscodec.Rank(4)).path
    with pytest.raises(EncodeError, match=r"embedding\.weight: expected packs of one architecture"):
        dtscodec.fuse(packs, tmp_path / "out", weights=[0.5, 0.5])


def test_dtypes_may_differ_and_the_widest_is_taken(tmp_path: Path) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in body(fine_state(2)).items()}
    packs = packs_of(tmp_path, [body(fine_state(1)), half])
    report = fuse(tmp_path, packs, weights=[0.5, 0.5], target=AMPLE, base=base_state())
    assert decoded(report.path)["layer.up.weight"].dtype == torch.float32
    assert error_to(report.path, weighted(packs, [0.5, 0.5])) < 5e-3


def test_ties_stay_ties(tmp_path: Path) -> None:
    fines = [
        {**body(fine_state(seed)), "lm_head.weight": body(fine_state(seed))["embedding.weight"]} for seed in (1, 2)
    ]
    packs = packs_of(tmp_path, fines)
    report = fuse(tmp_path, packs, weights=[0.5, 0.5], target=AMPLE)
    state = decoded(report.path)
    assert torch.equal(state["lm_head.weight"], state["embedding.weight"])
    with dtscodec.open(report.path) as fused:
        assert {size.kind for size in tensor_sizes(fused) if "lm_head" in size.name} == {"tie"}


def test_counters_are_those_of_the_pack_that_counts_most(tmp_path: Path) -> None:
    fines = [body(fine_state(seed)) | {"steps": torch.tensor([seed])} for seed in (1, 2)]
    packs = packs_of(tmp_path, fines)
    report = fuse(tmp_path, packs, weights=[0.3, 0.7])
    assert decoded(report.path)["steps"].tolist() == [2]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    one = fuse(tmp_path, packs, weights=[0.5, 0.5]).path.read_bytes()
    assert fuse(tmp_path, packs, weights=[0.5, 0.5]).path.read_bytes() == one


def test_an_input_is_never_replaced_and_an_output_only_by_force(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    before = packs[0].read_bytes()
    with pytest.raises(OutputError):
        dtscodec.fuse(packs, packs[0], weights=[0.5, 0.5], force=True)
    assert packs[0].read_bytes() == before
    save_file(base_state(), tmp_path / "base.safetensors")
    exact = [make_pack(base_state(), body(fine_state(s)), tmp_path / f"raw{s}", raw=("layer.*",)).path for s in (1, 2)]
    base = tmp_path / "base.safetensors"
    with pytest.raises(OutputError):
        dtscodec.fuse(exact, base, weights=[0.5, 0.5], base=base, force=True)
    (tmp_path / "there").write_text("kept")
    with pytest.raises(OutputError):
        dtscodec.fuse(packs, tmp_path / "there", weights=[0.5, 0.5])
    assert (tmp_path / "there").read_text() == "kept"


@pytest.mark.parametrize(
    "weights", [[0.5], [0.5, 0.5, 0.1], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]], ids=str
)
def test_weights_must_be_one_for_each_pack_and_finite(weights: list[float], tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    with pytest.raises(ConfigError):
        dtscodec.fuse(packs, tmp_path / "out", weights=weights)


def test_weights_or_the_unseen_task_must_be_given(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    with pytest.raises(ConfigError, match="`like`"):
        dtscodec.fuse(packs, tmp_path / "out")
    with pytest.raises(ConfigError, match="got none"):
        dtscodec.fuse([], tmp_path / "out", weights=[])
    with pytest.raises(ConfigError, match="list of packs"):
        dtscodec.fuse(str(packs[0]), tmp_path / "out", weights=[1.0])


def test_a_size_that_is_too_small_is_refused(tmp_path: Path) -> None:
    packs = packs_of(tmp_path, [body(fine_state(seed)) for seed in (1, 2)])
    with pytest.raises(EncodeError, match="`size`"):
        dtscodec.fuse(packs, tmp_path / "out", weights=[0.5, 0.5], target=dtscodec.Size.parse("100B"))
    assert not (tmp_path / "out").exists()


def test_packs_made_in_different_ways_are_fused(tmp_path: Path) -> None:
    """Bits, ranks, splits and kinds of block differ from pack to pack."""
    ways: list[dict[str, Any]] = [
        {"preset": dtscodec.Paper()},
        {"target": dtscodec.Rank(7)},
        {"target": dtscodec.MaxError(0.2)},
        {"target": AMPLE},
    ]
    packs = [
        make_pack(base_state(), body(fine_state(seed)), tmp_path / str(seed), **way).path
        for seed, way in enumerate(ways, 1)
    ]
    weights = [0.4, 0.3, 0.2, 0.1]
    report = fuse(tmp_path, packs, weights=weights, base=base_state(), target=AMPLE)
    assert error_to(report.path, weighted(packs, weights)) < 2e-3


def test_a_tensor_that_only_some_tie_is_summed(tmp_path: Path) -> None:
    base = base_state() | {"lm_head.weight": base_state()["embedding.weight"] + 1}
    tied, loose = (body(fine_state(seed)) for seed in (1, 2))
    tied["lm_head.weight"] = tied["embedding.weight"].clone()
    loose["lm_head.weight"] = base["lm_head.weight"] + 0.1 * torch.randn(300, WIDTH)
    packs = packs_of(tmp_path, [tied, loose], base)
    report = fuse(tmp_path, packs, base, weights=[0.5, 0.5], base=base, target=AMPLE)
    assert error_to(report.path, weighted(packs, [0.5, 0.5], base), base) < 2e-3


def test_the_base_is_found_as_decode_finds_it(tmp_path: Path) -> None:
    folder = tmp_path / "packs"
    folder.mkdir()
    save_file(base_state(), tmp_path / "base.safetensors")
    packs = packs_of(
        folder, [body(fine_state(1)), body(fine_state(2))], target=dtscodec.RankShare(0.5), raw=("layer.*",)
    )
    index = {"version": 1, "base": "base.safetensors", "packs": {}}
    (tmp_path / "dtscodec.json").write_text(json.dumps(index))
    report = fuse(tmp_path, packs, weights=[0.5, 0.5], target=AMPLE)
    assert error_to(report.path, weighted(packs, [0.5, 0.5])) < 2e-3


def test_quantized_weights_and_their_scales_are_those_of_one_pack(tmp_path: Path) -> None:
    def quantized(weight: Tensor) -> State:
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        return {"fc.weight": (weight / scale).to(torch.int8), "fc.weight_scale": scale}

    start = torch.randn(40, 40)
    base = quantized(start) | {"norm.weight": torch.ones(40)}
    packs = []
    for at in (1, 2):
        fine = quantized(start * (1 + 0.1 * at) + 0.05 * torch.randn(40, 40)) | {"norm.weight": torch.ones(40) + at}
        packs.append(make_pack(base, fine, tmp_path / f"{at}.safetensors").path)
    report = dtscodec.fuse(packs, tmp_path / "fused", base=base, weights=[0.4, 0.6])
    (note,) = report.notes
    assert note.names == ("fc.weight",)
    assert "1 quantized weight (95.2 % of the parameters) is not summed" in note.text
    with dtscodec.decode(tmp_path / "fused", base) as fused, dtscodec.decode(packs[1], base) as larger:
        for name in ("fc.weight", "fc.weight_scale"):
            assert torch.equal(fused[name], larger[name])
