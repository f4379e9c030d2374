"""Tied tensors: stored once, never in chains, and never less exactly than asked."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import dtscodec
from dtscodec.format.blocks import Tie
from tests.support import CODING, make_pack

NAMES = ["a.new", "b.known", "c.new", "d.known", "e.new"]


@pytest.mark.parametrize("settings", CODING.values(), ids=CODING)
@pytest.mark.parametrize("raw", [(), *itertools.combinations(NAMES, 1), *itertools.combinations(NAMES, 2)])
def test_equal_tensors_are_stored_once_without_chains_and_as_exactly_as_asked(
    raw: tuple[str, ...], settings: dict[str, Any], tmp_path: Path
) -> None:
    start = torch.randn(64, 48)
    content = start + 0.1 * torch.randn(64, 48)
    base = {"b.known": start, "d.known": start, "large": torch.randn(300, 300)}
    fine = dict.fromkeys(NAMES, content) | {"large": base["large"]}
    make_pack(base, fine, tmp_path / "p", raw=raw, **settings)
    with dtscodec.open(tmp_path / "p") as pack, dtscodec.decode(pack, base) as decoded:
        blocks = {name: pack.reader.entry(name).blocks[0] for name in NAMES}
        owners = {name for name, block in blocks.items() if not isinstance(block, Tie)}
        assert len(owners) == 1 or (len(owners) == 2 and owners & set(raw))  # one coded, one exact
        for name, block in blocks.items():
            assert not isinstance(block, Tie) or block.tied_to in owners
            if name in raw:
                assert torch.equal(decoded[name], content)


def test_a_tied_head_that_comes_before_its_embedding_costs_nothing(tmp_path: Path) -> None:
    embedding = torch.randn(500, 48)
    tuned = embedding + 0.1 * torch.randn(500, 48)
    fine = {"lm_head.weight": tuned, "wte.weight": tuned}
    make_pack({"wte.weight": embedding}, fine, tmp_path / "p", target=dtscodec.RankShare(0.1))
    with dtscodec.open(tmp_path / "p") as pack:
        assert pack.reader.entry("lm_head.weight").blocks == (Tie(500, "wte.weight"),)
    assert (tmp_path / "p").stat().st_size < tuned.numel()


def test_copies_of_one_memory_say_nothing_of_the_architecture(tmp_path: Path) -> None:
    embedding = torch.nn.Parameter(torch.randn(500, 48))
    base = {"shared.weight": embedding.detach() + 0.01, "w": torch.randn(8, 8)}
    fine = dict.fromkeys(["decoder.weight", "encoder.weight", "lm_head.weight", "shared.weight"], embedding.data)
    make_pack(base, fine | {"w": base["w"]}, tmp_path / "p")
