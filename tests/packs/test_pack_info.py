"""`dtscodec.info`: identity and sizes of a pack."""

from pathlib import Path

import pytest
import torch

import dtscodec
from tests.support import make_pack

BASE = {"weight": torch.zeros(64, 64), "head": torch.ones(4)}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    fine = {"weight": torch.randn(64, 2) @ torch.randn(2, 64), "head": torch.zeros(4)}
    return make_pack(BASE, fine, tmp_path / "pack", raw=("head",)).path


def test_info_gives_sizes_by_kind_and_tensor(pack: Path) -> None:
    held = dtscodec.info(pack)
    assert [tensor.name for tensor in held.tensors] == ["head", "weight"]
    assert held.size == pack.stat().st_size
    assert sum(tensor.size for tensor in held.tensors) + held.bitmaps + held.overhead == held.size
    assert held.parameters == 64 * 64 + 4
    assert held.kinds["raw"][0] == 1
