"""What a report tells is what the rest of the package says of the pack."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dtscodec
from dtscodec.errors import CheckpointError
from dtscodec.packs.byte_counts import tensor_sizes
from dtscodec.report.module_grid import MAX_COLUMNS, TensorGroup, module_grid, module_paths
from dtscodec.report.pack_statistics import component_norms, directory_statistics, pack_statistics
from dtscodec.report.statistics import PackStatistics, as_json, relative
from tests.report.conftest import LAYERS, Tensors
from tests.support import make_pack


@pytest.fixture(scope="module")
def facts(pack: Path, fine: Tensors, base: Tensors) -> PackStatistics:
    return pack_statistics(pack, fine, base)


def test_bytes_are_those_of_the_inventory_and_add_up(facts: PackStatistics, pack: Path) -> None:
    with dtscodec.open(pack) as opened:
        sizes = {size.name: size for size in tensor_sizes(opened)}
        assert facts.id == opened.id
    assert facts.size == pack.stat().st_size == sum(kind.size for kind in facts.kinds)
    assert [tensor.name for tensor in facts.tensors] == list(sizes)
    for tensor in facts.tensors:
        size = sizes[tensor.name]
        assert (tensor.size, tensor.kind, tensor.ranks) == (size.size, size.kind, size.ranks)
        assert sum(tensor.parts.values()) == size.size
        assert {int(part) for part in tensor.parts if part.isdigit()} == set(size.bits)


def test_errors_are_those_of_compare(facts: PackStatistics, pack: Path, fine: Tensors, base: Tensors) -> None:
    comparison = dtscodec.compare(pack, fine, base)
    assert facts.closeness is not None
    assert facts.closeness.error == comparison.total.relative_error
    for tensor, compared in zip(facts.tensors, comparison.tensors, strict=True):
        assert tensor.exact == compared.exact
        assert tensor.error == (compared.closeness.relative_error if compared.closeness else None)
    group = TensorGroup(tuple(tensor for tensor in facts.tensors if tensor.name != "classifier.weight"))
    assert group.error == pytest.approx(comparison.total.relative_error)


def test_a_spectrum_is_the_norms_of_what_each_component_decodes_to(facts: PackStatistics, pack: Path) -> None:
    tensor = next(tensor for tensor in facts.tensors if tensor.name == "embeddings.weight")
    with dtscodec.open(pack) as opened:
        [(_, coded)] = opened.factors(tensor.name)
    assert coded.right is not None
    norms = [np.linalg.norm(np.outer(u, v)) for u, v in zip(coded.left.T, coded.right, strict=True)]
    [spectrum] = tensor.spectra
    assert spectrum == pytest.approx(sorted(norms, reverse=True), rel=1e-3)
    assert len(spectrum) == tensor.ranks[0]


def test_a_spectrum_of_one_component_is_the_norm_of_the_delta(base: Tensors, fine: Tensors, tmp_path: Path) -> None:
    path = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Rank(1)).path
    with dtscodec.open(path) as opened:
        norm = np.linalg.norm(opened.delta("embeddings.weight"))
    [tensor] = [tensor for tensor in pack_statistics(path).tensors if tensor.name == "embeddings.weight"]
    [[only]] = tensor.spectra
    assert only == pytest.approx(norm, rel=1e-3)


def test_reasons_are_told_as_far_as_they_are_known(pack: Path, base: Tensors, tmp_path: Path, fine: Tensors) -> None:
    def why(facts: PackStatistics) -> dict[str, str]:
        return {tensor.name: tensor.reason for tensor in facts.tensors if tensor.reason}

    never = {"steps": "exact: I64 is never coded"}
    unknown = {"classifier.weight": "exact: new, tiny, the best use of its bytes, or on request"}
    assert why(pack_statistics(pack)) == never | unknown
    assert why(pack_statistics(pack, base=base)) == never | {"classifier.weight": "exact: new, not in the base"}
    kept = make_pack(base, fine, tmp_path / "raw", target=dtscodec.Rank(1), raw=("embeddings*",)).path
    reason = why(pack_statistics(kept, base=base))["embeddings.weight"]
    assert reason == "exact: tiny, the best use of its bytes, or on request"
    tight = make_pack(base, fine, tmp_path / "tight", target=dtscodec.Size.parse("3kB")).path
    assert why(pack_statistics(tight))["classifier.weight"] == "new: not in the base, so coded by itself"


def test_facts_are_json_of_finite_numbers(facts: PackStatistics) -> None:
    assert json.loads(json.dumps(as_json(facts), allow_nan=False))["size"] == facts.size


def test_what_is_no_number_does_not_get_into_facts() -> None:
    assert relative(math.inf, 1.0) is relative(math.nan, 1.0) is relative(1.0, 0.0) is relative(None, None) is None
    left = np.array([[1.0, np.inf, 0.0]], np.float32)
    largest, one, nothing = component_norms(left, np.ones((3, 1), np.float32))
    assert (one, nothing) == (1.0, 0.0)
    assert largest == pytest.approx(3.4e38, rel=0.01)


def test_without_a_fine_tune_no_torch_is_needed(pack: Path) -> None:
    code = (
        "import sys; from dtscodec.report.pack_statistics import pack_statistics; "
        "from dtscodec.report.page import page; "
        "page(pack_statistics(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(pack)], check=False).returncode == 0


def test_a_directory_has_the_facts_of_each_pack(folder: Path) -> None:
    facts = directory_statistics(folder)
    assert list(facts.packs) == ["<tweets>", "movie"]
    assert facts.packs["movie"] == pack_statistics(folder / "packs" / "2.safetensors")
    assert as_json(facts)["packs"]["movie"]["size"] == facts.packs["movie"].size


def test_a_directory_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a directory with dtscodec\.json"):
        directory_statistics(tmp_path)


@pytest.mark.parametrize(
    ("name", "depth", "module"),
    [
        ("bert.encoder.layer.3.attention.self.query.weight", 3, "attention.self.query"),
        ("bert.encoder.layer.3.attention.self.query.bias", 3, "attention.self.query.bias"),
        ("model.layers.11.mlp.experts.7.w1.weight", 11, "mlp.experts.*.w1"),
        ("h.0.attn.c_attn.weight", 0, "attn.c_attn"),
        ("embeddings.word_embeddings.weight", None, "embeddings.word_embeddings"),
        ("0.weight", 0, "weight"),
        ("weight", None, "weight"),
        ("block.7", None, "block.7"),
        ("layer.99999999999999.weight", None, "layer.99999999999999"),
        ("layer.٣.weight", None, "layer.٣"),
        ("", None, ""),
    ],
)
def test_names_are_taken_apart(name: str, depth: int | None, module: str) -> None:
    place = module_paths([name])[name]
    assert (place.depth, place.module) == (depth, module)


def test_a_grid_has_a_cell_for_each_matrix(facts: PackStatistics) -> None:
    cells = module_grid(facts.tensors)
    assert cells.columns == tuple(map(str, range(LAYERS)))
    assert set(cells.layers["attention.query"]) == set(range(LAYERS))
    assert "attention.query.bias" not in cells.layers
    assert {"embeddings", "classifier"} <= set(cells.others)


def test_layers_of_a_deep_model_share_columns(facts: PackStatistics) -> None:
    deep = [replace(facts.tensors[0], depth=depth, module="m", shape=(2, 2)) for depth in range(2 * MAX_COLUMNS + 1)]
    cells = module_grid(deep)
    assert len(cells.columns) <= MAX_COLUMNS
    assert sum(len(group.tensors) for group in cells.layers["m"].values()) == len(deep)
