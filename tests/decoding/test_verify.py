"""`dtscodec.verify`, `info` and `write_report`: what the commands of these names do, as calls."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.errors import BaseMismatchError, ChecksumError, ConfigError, OutputError
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


def test_info_gives_sizes_by_kind_and_tensor(pack: Path) -> None:
    held = dtscodec.info(pack)
    assert [tensor.name for tensor in held.tensors] == ["head", "weight"]
    assert held.size == pack.stat().st_size
    assert sum(tensor.size for tensor in held.tensors) + held.bitmaps + held.overhead == held.size
    assert held.parameters == 64 * 64 + 4
    assert held.kinds["raw"][0] == 1


def test_a_report_is_a_page_that_is_replaced_with_force_only(pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    dtscodec.write_report(pack, out)
    assert out.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(OutputError):
        dtscodec.write_report(pack, out)
    dtscodec.write_report(pack, out, force=True)
    with pytest.raises(ConfigError):
        dtscodec.write_report(pack, tmp_path / "page.txt")
    with pytest.raises(ConfigError):
        dtscodec.write_report(tmp_path, tmp_path / "all.html", base=BASE)
