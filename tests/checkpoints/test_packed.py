"""A base that is stored as a pack: the same tensors, digest and uses as the plain checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.containers.exact_pack import PackedCheckpoint
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.merging.family_base import write_base_pack
from tests.support import check_against_spec

State = dict[str, torch.Tensor]


def state() -> State:
    generator = torch.Generator().manual_seed(1)
    return {
        "a": torch.randn(300, 300, generator=generator),
        "b": torch.randn(40, 24, generator=generator).bfloat16(),
        "c": torch.zeros(3, 50),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "steps": torch.tensor([3, 5]),
        "tied": torch.zeros(3, 50),
    }


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """A plain checkpoint, and the same as a pack."""
    plain, packed = tmp_path / "plain.safetensors", tmp_path / "packed.safetensors"
    save_file(state(), plain, {"format": "pt"})
    with open_checkpoint(plain) as found:
        ties = {"tied": "c"}
        write_base_pack(packed, found.specs, found.read, metadata=found.metadata, ties=ties, made_by="hand")
    return plain, packed


def test_it_has_the_same_tensors_metadata_and_digest_in_fewer_bytes(both: tuple[Path, Path]) -> None:
    plain, packed = both
    with Base(plain) as one, Base(packed) as other:
        assert isinstance(other.checkpoint, PackedCheckpoint)
        assert one.specs == other.specs
        assert all(np.array_equal(one.read(name), other.read(name)) for name in one.specs)
        assert one.checkpoint.metadata == other.checkpoint.metadata
        assert one.digest(one.specs) == other.digest(one.specs)
        assert other.checkpoint.aliases == {"tied": "c"}
    assert packed.stat().st_size < 0.95 * plain.stat().st_size


def test_the_specs_decoder_reads_it_and_so_does_decode_without_a_base(both: tuple[Path, Path]) -> None:
    check_against_spec(both[1], {})
    with dtscodec.decode(both[1]) as decoded:
        assert all(torch.equal(decoded[name], value) for name, value in state().items())


def test_packs_made_against_either_are_the_same_and_decode_with_the_other(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    fine = {name: value + 1 for name, value in state().items()}
    config = dtscodec.EncodeConfig(target=dtscodec.Rank(4))
    packs = [dtscodec.encode(base, fine, tmp_path / f"{base.stem}-pack", config).path for base in both]
    assert packs[0].read_bytes() == packs[1].read_bytes()
    for pack, base in zip(packs, reversed(both), strict=True):
        with dtscodec.decode(pack, base) as decoded:
            decoded.check_base_tensors()
            assert torch.allclose(decoded["a"], fine["a"], atol=0.5)
        with dtscodec.open(pack) as opened:
            assert opened.tensor("a", base).shape == (300, 300)
        assert (dtscodec.compare(pack, fine, base).total.relative_error or 0) < 0.5


def test_workers_read_it(both: tuple[Path, Path], tmp_path: Path) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    save_file({name: value + 1 for name, value in state().items()}, tmp_path / "fine.safetensors")
    config = dtscodec.EncodeConfig(target=dtscodec.Rank(4))
    alone = dtscodec.encode(both[1], tmp_path / "fine.safetensors", tmp_path / "alone", config)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        out = tmp_path / "shared"
        shared = dtscodec.encode(both[1], tmp_path / "fine.safetensors", out, config, executor=executor)
    assert alone.path.read_bytes() == shared.path.read_bytes()


def test_running_models_take_it(both: tuple[Path, Path], tmp_path: Path) -> None:
    model = torch.nn.Linear(8, 8)
    base = {name: value.detach().clone() for name, value in model.state_dict().items()}
    fine = {name: value + 0.1 for name, value in base.items()}
    packed = tmp_path / "linear.safetensors"
    with open_checkpoint(base) as found:
        write_base_pack(packed, found.specs, found.read, metadata={}, ties={}, made_by="hand")
    pack = dtscodec.encode(
        packed, fine, tmp_path / "task.safetensors", dtscodec.EncodeConfig(target=dtscodec.Rank(8))
    ).path
    switcher = dtscodec.Switcher(model, packed)
    switcher.add("task", pack)
    switcher.activate("task")
    assert torch.allclose(model.bias, fine["bias"], atol=0.05)
    switcher.deactivate()
    assert torch.equal(model.weight, base["weight"])
    switcher.close()
    with dtscodec.attach(model, {"task": pack}, packed) as attached, attached.serve("task"):
        assert model(torch.ones(2, 8)).shape == (2, 8)
    dtscodec.apply_(model, pack, base=packed)
    assert torch.allclose(model.bias, fine["bias"], atol=0.05)


def read_all(path: Path) -> None:
    with open_checkpoint(path) as found:
        for name in found.specs:
            found.read(name)


def test_damage_is_found(both: tuple[Path, Path]) -> None:
    data = bytearray(both[1].read_bytes())
    for position in (len(data) // 2, 200):
        changed = bytearray(data)
        changed[position] ^= 1
        both[1].write_bytes(changed)
        with pytest.raises(CheckpointError):
            read_all(both[1])


def test_a_pack_that_needs_a_base_is_no_checkpoint(both: tuple[Path, Path], tmp_path: Path) -> None:
    fine = {name: value + 1 for name, value in state().items()}
    pack = dtscodec.encode(both[0], fine, tmp_path / "pack", dtscodec.EncodeConfig(target=dtscodec.Rank(4))).path
    with pytest.raises(CheckpointError, match="decode it first"):
        open_checkpoint(pack)


def test_reading_it_imports_no_torch(both: tuple[Path, Path]) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from dtscodec.checkpoints.open import open_checkpoint; "
        f"c = open_checkpoint({str(both[1])!r}); [c.read(n) for n in c.specs]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
