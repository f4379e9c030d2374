import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dtscodec.cli.main import main
from tests.cli.helpers import CODED, FINE_TUNES, PACK, Cli, base_tensors, fine_tensors, write_model


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a base, two fine-tunes of it, and a pack of the first one in which all changes are coded."""
    root = tmp_path_factory.mktemp("made")
    write_model(root / "base", base_tensors())
    for seed, name in enumerate(FINE_TUNES, start=11):
        write_model(root / name, fine_tensors(seed), task=name)
    assert main(["encode", f"{root}/base", f"{root}/movie", "-o", f"{root}/{PACK}", *CODED]) == 0
    return root


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it of one's own: the working directory."""
    root = tmp_path / "work"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def cli(work: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys, work)


@pytest.fixture
def large(work: Path) -> Path:
    """A base and a fine-tune whose raw pack and decoded checkpoint take 200 kB, of many digest blocks."""
    generator = torch.Generator().manual_seed(5)
    base = {f"layer.{i}.weight": torch.randn(50, 100, generator=generator) for i in range(10)}
    save_file(base, work / "large-base.safetensors")
    moved = {name: tensor + torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}
    save_file(moved, work / "large.safetensors")
    return work


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; where none can be mounted, a limit on files of that size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if mounted(disk, "size=64k"):
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that nobody can write to."""
    disk = tmp_path / "read-only"
    disk.mkdir()
    if not mounted(disk, "ro"):
        pytest.skip("needs root and the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def mounted(place: Path, options: str) -> bool:
    """Mount a file system in memory, if that is allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    return os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
