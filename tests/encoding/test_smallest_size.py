"""What a refusal says of the smallest size is true, and what is new takes no more than it must."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dtscodec
from dtscodec import EncodeConfig
from dtscodec.encoding.targets import Size
from dtscodec.errors import EncodeError
from dtscodec.format.blocks import Values
from dtscodec.packs.byte_counts import tensor_sizes
from tests.support import make_pack

Tensors = dict[str, Tensor]


def size(count: int) -> dict[str, Any]:
    """The setting of a size in bytes."""
    return {"target": Size.parse(f"{count}B")}


def smallest_of(base: Tensors, fine: Tensors, out: Path, task: str | None = None) -> int:
    """The smallest size that can be reached, as a refusal tells it."""
    with pytest.raises(EncodeError) as caught:
        dtscodec.encode(base, fine, out, EncodeConfig(**size(1)), task=task)
    found = re.search(r"at least ([\d,]+) bytes", str(caught.value))
    assert found
    return int(found[1].replace(",", ""))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def with_new_matrix(side: int) -> tuple[Tensors, Tensors]:
    """A fine-tune with a large new matrix, and a change of another; both of steep spectrum. Nobody may change it."""
    base = {f"w{i}": normal(64, 64, seed=i) for i in range(60)} | {"a": normal(128, 128)}
    return base, base | {"a": base["a"] + steep(128, 0.8), "new": steep(side, 1.5)}


def steep(side: int, power: float) -> Tensor:
    """A square matrix whose singular values fall by a power law."""
    left, right = (torch.linalg.qr(normal(side, side, seed=seed)).Q for seed in (1, 2))
    matrix: Tensor = 0.02 * (left * torch.arange(1, side + 1).pow(-power)) @ right
    return matrix


def test_the_smallest_size_can_be_asked_for_whatever_the_length_of_the_task(tmp_path: Path) -> None:
    # The pack's summary tells the size that was asked for. That text must not be what makes a pack too large for it.
    base = {"w": torch.ones(64, 64), "v": torch.zeros(64, 64)}
    fine = base | {"w": torch.zeros(64, 64), "head": torch.linspace(-1, 1, 150).reshape(3, 50)}
    for length in range(1, 33):  # headers are padded to multiples of 32
        task, out = "t" * length, tmp_path / str(length)
        smallest = smallest_of(base, fine, out, task)
        assert dtscodec.encode(base, fine, out, EncodeConfig(**size(smallest)), task=task).pack_bytes <= smallest


def test_the_size_of_a_pack_can_be_asked_for(tmp_path: Path) -> None:
    base, fine = with_new_matrix(256)
    made = make_pack(base, fine, tmp_path / "pack").pack_bytes
    assert make_pack(base, fine, tmp_path / "again", **size(made)).pack_bytes <= made


def test_a_new_matrix_is_coded_by_singular_vectors_where_its_values_do_not_fit(tmp_path: Path) -> None:
    base, fine = with_new_matrix(160)
    report = make_pack(base, fine, tmp_path / "pack", **size(15_000))  # 8 bits an element would take 26 kB
    with dtscodec.open(report.path) as pack, dtscodec.decode(pack, base) as decoded:
        assert {tensor.name: tensor.kind for tensor in tensor_sizes(pack)}["new"] == "lowrank"
        assert (decoded["new"] - fine["new"]).norm() < 0.1 * fine["new"].norm()


@pytest.mark.parametrize(("beyond", "bits"), [(0, 8), (7_000, 16)])
def test_a_new_head_has_8_bits_at_the_smallest_size_and_16_where_there_is_room(
    beyond: int, bits: int, tmp_path: Path
) -> None:
    base = {"w": normal(64, 96), "v": normal(96, 64)}
    fine = base | {"w": base["w"] + 0.001 * normal(64, 96, seed=1), "head": 0.02 * normal(5, 96, seed=2)}
    budget = smallest_of(base, fine, tmp_path / "refused") + beyond
    report = make_pack(base, fine, tmp_path / "pack", **size(budget))
    with dtscodec.open(report.path) as pack:
        (block,) = pack.reader.entry("head").blocks
    assert isinstance(block, Values)
    assert (block.bits, block.base) == (bits, None)


def test_new_rows_with_nan_keep_every_bit_beside_coded_ones(tmp_path: Path) -> None:
    base = {"embeddings": normal(300, 64), "w": normal(64, 64)}
    grown = torch.cat([base["embeddings"] + 0.01 * normal(300, 64, seed=1), normal(2, 64, seed=2)])
    grown[300, 7] = float("nan")
    report = make_pack(base, {"embeddings": grown, "w": base["w"]}, tmp_path / "pack", **size(12_000))
    with dtscodec.open(report.path) as pack, dtscodec.decode(pack, base) as decoded:
        assert next(iter(tensor_sizes(pack))).kind == "raw+lowrank"
        assert decoded["embeddings"][300:].numpy().tobytes() == grown[300:].numpy().tobytes()
