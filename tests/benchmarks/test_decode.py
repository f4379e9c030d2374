"""The reference that decoding is timed against computes the same; the page shows the recorded figures."""

import json
from pathlib import Path

import torch

import dtscodec
from benchmarks.common.timing import median_times
from benchmarks.decode.floor import Floor
from benchmarks.decode.report import PARTS, decoding_page
from benchmarks.decode.switch import changes
from tests.support import ROOT, make_pack


def test_the_floor_rebuilds_what_decode_does(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    base = {"wide": torch.randn(90, 80, generator=random), "bias": torch.randn(70, generator=random)}
    fines = []
    for _ in range(2):
        fine = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=random) for name, tensor in base.items()}
        fine["wide"][::3] = base["wide"][::3]
        fines.append(fine | {"head": torch.randn(4, 80, generator=random)})
    fines[1]["bias"] = base["bias"]
    packs = [make_pack(base, fine, tmp_path / str(i), target=dtscodec.Rank(5)).path for i, fine in enumerate(fines)]
    loaded = []
    for path in packs:
        with dtscodec.open(path) as pack:
            loaded.append(changes(pack))
    out = {name: torch.zeros_like(tensor) for name, tensor in fines[0].items()}
    floor = Floor(base, out)
    for new, old in ((0, 1), (1, 0), (0, 1)):
        for step in floor.steps(loaded[new], list(loaded[old])):
            step()
        with dtscodec.decode(packs[new], base) as decoded:
            for name, tensor in decoded.items():
                assert torch.allclose(out[name], tensor, atol=1e-5), name


def test_ways_are_timed_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    found = median_times({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, turns=3)
    assert calls == ["a", "b"] * 4
    assert set(found) == {"a", "b"}


def test_the_recorded_page_is_what_the_recorded_figures_give() -> None:
    folder = ROOT / "benchmarks" / "decode"
    result = json.loads((folder / "result.json").read_text())
    assert set(result) == set(PARTS)
    assert (folder / "RESULT.md").read_text() == decoding_page(result)
