"""`dtscodec.verify`: every byte of a pack is checked, and every base tensor that it uses."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.errors import BaseMismatchError, ChecksumError
from tests.support import make_pack

BASE = {"weight": torch.zeros(64, 64), "head": torch.ones(4)}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    fine = {"weight": torch.randn(64, 2) @ torch.randn(2, 64), "head": torch.zeros(4)}
    return make_pack(BASE, fine, tmp_path / "pack", raw=("head",)).path


def test_verify_reports_what_was_checked(pack: Path) -> None:
    counted: list[int] = []
    report = dtscodec.verify(pack, progress=counted.append)
    assert (report.path, report.size, report.tensors) == (str(pack), pack.stat().st_size, 2)
    assert not report.is_base_checked
    assert 0 < sum(counted) <= report.size
    assert dtscodec.verify(pack, BASE).is_base_checked
    assert dtscodec.verify(pack.read_bytes()).pack_id == report.pack_id


def test_verify_raises_for_damage_and_for_another_base(pack: Path) -> None:
    with pytest.raises(BaseMismatchError):
        dtscodec.verify(pack, BASE | {"weight": torch.ones(64, 64)})
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    with pytest.raises(ChecksumError):
        dtscodec.verify(bytes(data))
