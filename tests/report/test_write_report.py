"""`dtscodec.write_report`: one page as a file, never replaced by accident."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.errors import ConfigError, OutputError
from tests.support import make_pack

BASE = {"weight": torch.zeros(64, 64), "head": torch.ones(4)}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    fine = {"weight": torch.randn(64, 2) @ torch.randn(2, 64), "head": torch.zeros(4)}
    return make_pack(BASE, fine, tmp_path / "pack", raw=("head",)).path


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
