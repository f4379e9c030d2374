"""Opening packs in other programs: numpy, safetensors and zstandard are enough for factors and single tensors."""

import json
import subprocess
import sys
import sysconfig
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from tests.support import ROOT, make_pack

NEEDED = ("numpy", "safetensors", "zstandard")

PROGRAM = """
import json, sys
import dtscodec, numpy
with dtscodec.open("pack") as pack:
    rows = {name: pack.tensor(name, "base.safetensors").tolist() for name in pack.keys()}
    deltas = {name: pack.delta(name).tolist() for name in pack.keys() if name != "head"}
    factors = {name: [[row, f.left.shape, f.right.shape] for row, f in pack.factors(name)] for name in ("weight",)}
print(json.dumps([rows, deltas, factors, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder of packages, as `pip install --no-deps dtscodec` and those three would leave it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "dtscodec").symlink_to(ROOT / "dtscodec")
    for package in NEEDED:
        for name in {file.parts[0] for file in files(package) or ()} - {".."}:
            (folder / name).symlink_to(Path(sysconfig.get_path("platlib")) / name)
    return folder


def test_factors_and_tensors_come_without_torch(environment: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = {"weight": torch.randn(70, 90).bfloat16(), "bias": torch.randn(90), "steps": torch.arange(5)}
    fine = {name: tensor + (0.1 * torch.randn(tensor.shape)).to(tensor.dtype) for name, tensor in base.items()}
    fine |= {"head": torch.randn(3, 4)}
    save_file(base, tmp_path / "base.safetensors")
    make_pack(base, fine, tmp_path / "pack", target=dtscodec.Rank(5))
    run = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(environment)!r})\n{PROGRAM}"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    tensors, deltas, factors, modules = json.loads(done.stdout)
    assert not {"torch", "huggingface_hub"} & set(modules)
    assert factors == {"weight": [[0, [70, 5], [5, 90]]]}
    with dtscodec.open(tmp_path / "pack") as pack:
        for name, values in tensors.items():
            assert np.array_equal(np.array(values), pack.tensor(name, base))
        for name, values in deltas.items():
            assert np.array_equal(np.array(values), pack.delta(name))
