"""Unchanged parts of a real model take no bytes and are restored bit for bit: rows, columns, experts, q and k."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

import dtscodec
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.format.blocks import Block, LowRank, Raw, Same, Values
from dtscodec.packs.byte_counts import TensorSize, tensor_sizes
from tests import models
from tests.models import VOCABULARY, WIDTH, Pair, State
from tests.support import CODING, make_pack


class RoundTrip:
    """A fine-tune, what its pack holds, and what that decodes to."""

    def __init__(self, base: Source, fine: Source, folder: Path, **settings: Any) -> None:
        self.pack = make_pack(base, fine, folder / "pack", **settings).path
        self.base, self.fine = models.read_all(base), models.read_all(fine)
        with dtscodec.decode(self.pack, base) as decoded:
            self.decoded: State = {name: tensor.clone() for name, tensor in decoded.items()}
            self.sizes: dict[str, TensorSize] = {size.name: size for size in tensor_sizes(decoded.pack)}
            self.blocks: dict[str, tuple[Block, ...]] = {t.name: t.blocks for t in decoded.pack.index.tensors}

    def kinds(self, name: str) -> list[str]:
        return [block.kind for block in self.blocks[name]]

    def relative_error(self, name: str, rows: Any = slice(None)) -> float:
        true, ours = (state[name][rows].float() - self.base[name][rows].float() for state in (self.fine, self.decoded))
        return float((ours - true).norm() / true.norm())


Trips: TypeAlias = Callable[..., RoundTrip]


@pytest.fixture(params=list(CODING.values()), ids=list(CODING))
def round_trip(request: pytest.FixtureRequest) -> Trips:
    return partial(RoundTrip, **request.param)


def coded(block: Block) -> LowRank | Values:
    assert isinstance(block, LowRank | Values)
    return block


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


# Vocabulary


@pytest.mark.parametrize("save", [models.save, models.save_bin])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_of_a_grown_vocabulary_only_the_new_rows_are_raw(
    name: str, save: Callable[[Any, Path], Path], round_trip: Trips, tmp_path: Path
) -> None:
    pair = models.make_pair(name)
    pair.fine.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)
    trip = round_trip(models.save(pair.base, tmp_path / "base"), save(pair.fine, tmp_path / "fine"), tmp_path)

    embedding = {"llama": "model.embed_tokens.weight", "t5": "shared.weight"}[name]
    assert [(type(b), b.height) for b in trip.blocks[embedding]] == [(LowRank, VOCABULARY), (Raw, 3)]
    assert torch.equal(trip.decoded[embedding][-3:], trip.fine[embedding][-3:])
    assert trip.relative_error(embedding, slice(VOCABULARY)) < 0.8
    aliases = [n for n in trip.fine if n != embedding and trip.fine[n].shape == trip.fine[embedding].shape]
    assert len(aliases) == (0 if save is models.save else {"llama": 1, "t5": 3}[name])
    for alias in aliases:
        assert trip.kinds(alias) == ["tie"]
        assert torch.equal(trip.decoded[alias], trip.decoded[embedding])


def test_a_grown_but_otherwise_unchanged_vocabulary_is_stored_as_same_and_raw_rows(
    round_trip: Trips, tmp_path: Path
) -> None:
    base = models.llama()
    fine = models.llama()
    fine.load_state_dict(base.state_dict())
    fine.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)
    trip = round_trip(models.save(base, tmp_path / "base"), models.save(fine, tmp_path / "fine"), tmp_path)
    assert trip.kinds("model.embed_tokens.weight") == ["same", "raw"]
    assert all(torch.equal(trip.decoded[name], tensor) for name, tensor in trip.fine.items())


def test_a_sparsely_touched_embedding_costs_little_and_keeps_its_other_rows(round_trip: Trips, tmp_path: Path) -> None:
    pair = models.make_pair("llama")
    base = models.save(pair.base, tmp_path / "base")
    fine = models.read_all(base)
    name, rows = "model.embed_tokens.weight", [3, 17, 18, 90, 159]
    fine[name][rows] += 0.01 * random(5, WIDTH)
    trip = round_trip(base, fine, tmp_path)

    (block,) = map(coded, trip.blocks[name])
    assert (block.rows, block.cols) == (5, None)
    assert trip.sizes[name].size < 300
    others = torch.ones(VOCABULARY, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(trip.decoded[name][others], trip.base[name][others])
    assert trip.relative_error(name, rows) < 0.8


# Ties


@pytest.mark.parametrize(
    ("name", "tied", "to"),
    [
        ("gpt2", ["lm_head.weight"], "transformer.wte.weight"),
        ("llama", ["lm_head.weight"], "model.embed_tokens.weight"),
        ("t5", ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight"], "shared.weight"),
        ("whisper", ["proj_out.weight"], "model.decoder.embed_tokens.weight"),
    ],
)
@pytest.mark.parametrize("moved", [True, False])
def test_names_that_exist_only_in_memory_are_tied_to_the_name_in_the_base(
    name: str, tied: list[str], to: str, moved: bool, round_trip: Trips, tmp_path: Path
) -> None:
    pair = models.make_pair(name)
    fine = (pair.fine if moved else pair.base).state_dict()
    trip = round_trip(models.save(pair.base, tmp_path / "base"), fine, tmp_path)
    assert trip.kinds(to) == ["lowrank" if moved else "same"]
    assert all(trip.kinds(alias) == ["tie"] for alias in tied)


def test_an_exactly_stored_tensor_is_not_tied_to_a_coded_one(round_trip: Trips, tmp_path: Path) -> None:
    base = {"a": random(64, 64), "b": random(64, 64), "c": random(64, 64)}
    moved = base["a"] + 0.01 * random(64, 64)
    trip = round_trip(base, {"a": moved, "b": moved, "c": moved}, tmp_path, raw=("b",))
    assert [trip.kinds(name) for name in "abc"] == [["lowrank"], ["raw"], ["tie"]]
    assert torch.equal(trip.decoded["b"], moved)
    assert torch.equal(trip.decoded["c"], moved)


# Dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_fine_tune_is_coded_only_in_its_changed_rows(
    dtype: torch.dtype, round_trip: Trips, tmp_path: Path
) -> None:
    pair = models.make_pair("llama")
    base = models.save(pair.base, tmp_path / "base")
    trip = round_trip(base, models.save(pair.fine.to(dtype), tmp_path / "fine"), tmp_path)
    assert {tensor.dtype for tensor in trip.decoded.values()} == {dtype}
    kinds = {size.kind for size in trip.sizes.values()}
    assert {"same", "lowrank"} <= kinds <= {"same", "lowrank", "raw", "values"}
    for name, tensor in trip.fine.items():
        unmoved = torch.equal(tensor, trip.base[name].to(dtype))
        assert unmoved == (trip.sizes[name].kind == "same")
        assert not unmoved or torch.equal(trip.decoded[name], tensor)
        assert unmoved or trip.relative_error(name) < 0.8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_that_only_rounding_changed_are_not_coded(dtype: torch.dtype, round_trip: Trips, tmp_path: Path) -> None:
    base = {"w": random(128, 64)}
    fine = {"w": base["w"].to(dtype)}
    fine["w"][7] *= 1.5
    trip = round_trip(base, fine, tmp_path)
    assert coded(trip.blocks["w"][0]).rows == 1
    others = torch.arange(128) != 7
    assert torch.equal(trip.decoded["w"][others], fine["w"][others])


def test_integer_buffers_are_exact(round_trip: Trips, tmp_path: Path) -> None:
    pair = models.make_pair("resnet")
    trip = round_trip(models.save(pair.base, tmp_path / "base"), models.save(pair.fine, tmp_path / "fine"), tmp_path)
    counters = [name for name in trip.fine if name.endswith("num_batches_tracked")]
    assert counters
    for name in counters:
        assert trip.fine[name].dtype == torch.int64
        assert trip.fine[name].shape == ()
        assert trip.kinds(name)[0] in ("raw", "tie")
        assert torch.equal(trip.decoded[name], trip.fine[name])
        assert trip.decoded[name] == 1000


# Parts of fused tensors


@pytest.fixture(scope="module")
def mixtral() -> Pair:
    return models.make_pair("mixtral")


@pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
def test_only_the_changed_one_of_fused_experts_takes_bytes(
    part: str, mixtral: Pair, round_trip: Trips, tmp_path: Path
) -> None:
    name = f"model.layers.0.mlp.experts.{part}"
    base = mixtral.base.state_dict()
    fine = base | {name: base[name].clone()}
    fine[name][2] += models.delta_like(base[name][2], torch.Generator().manual_seed(5))
    trip = round_trip(base, fine, tmp_path)

    kinds = [Same, Same, LowRank, Same]
    assert [(type(block), block.height) for block in trip.blocks[name]] == [(k, base[name].shape[1]) for k in kinds]
    others = [0, 1, 3]
    assert torch.equal(trip.decoded[name][others], base[name][others])
    assert trip.relative_error(name, 2) < 0.8
    assert trip.sizes[name].size == sum(size.size for size in trip.sizes.values())


def test_every_expert_has_factors_of_its_own(mixtral: Pair, round_trip: Trips, tmp_path: Path) -> None:
    trip = round_trip(mixtral.base.state_dict(), mixtral.fine.state_dict(), tmp_path)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert trip.sizes[name].ranks == (6,) * 4
    assert all(trip.relative_error(name, expert) < 0.8 for expert in range(4))


def test_fused_experts_are_encoded_against_those_of_a_base_on_disk(mixtral: Pair, tmp_path: Path) -> None:
    """In memory they are fused, on disk they are not: each expert is a block of its own, and no wrong one."""
    base, fine = models.save(mixtral.base, tmp_path / "base"), mixtral.fine.state_dict()
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.MaxError(0.3))
    assert [note.kind for note in report.notes] == ["other-names"]
    assert 0 < report.relative_error <= 0.3
    name = "model.layers.0.mlp.experts.gate_up_proj"
    with dtscodec.decode(report.path, base) as decoded:
        for expert in range(4):
            change = fine[name][expert] - mixtral.base.state_dict()[name][expert]
            assert (decoded[name][expert] - fine[name][expert]).norm() < 0.5 * change.norm()


def test_of_the_fused_columns_of_gpt2_only_those_of_v_change(round_trip: Trips, tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    base = models.make_pair("gpt2").base.state_dict()
    fine = {key: tensor.clone() for key, tensor in base.items()}
    fine[f"{name}.weight"][:, 2 * WIDTH :] += 0.01 * random(WIDTH, 4) @ random(4, WIDTH)
    fine[f"{name}.bias"][2 * WIDTH :] += 0.01 * random(WIDTH)
    fine["lm_head.weight"] = fine["transformer.wte.weight"]
    trip = round_trip(base, fine, tmp_path)

    weight, bias = (coded(trip.blocks[f"{name}.{part}"][0]) for part in ("weight", "bias"))
    assert (weight.rows, weight.cols) == (None, WIDTH)
    assert (bias.rows, bias.cols) == (WIDTH, None)
    for part in ("weight", "bias"):
        ours, start = trip.decoded[f"{name}.{part}"], base[f"{name}.{part}"]
        assert torch.equal(ours[..., : 2 * WIDTH], start[..., : 2 * WIDTH])
        assert trip.relative_error(f"{name}.{part}") < 0.9


def test_of_a_fused_projection_of_q_k_v_only_the_rows_of_v_change(round_trip: Trips, tmp_path: Path) -> None:
    base = torch.nn.MultiheadAttention(WIDTH, 2).state_dict()
    fine = {key: tensor.clone() for key, tensor in base.items()}
    fine["in_proj_weight"][2 * WIDTH :] += 0.01 * random(WIDTH, 4) @ random(4, WIDTH)
    trip = round_trip(base, fine, tmp_path)
    block = coded(trip.blocks["in_proj_weight"][0])
    assert (block.rows, block.cols) == (WIDTH, None)
    assert torch.equal(trip.decoded["in_proj_weight"][: 2 * WIDTH], base["in_proj_weight"][: 2 * WIDTH])
    assert trip.relative_error("in_proj_weight") < 0.9
