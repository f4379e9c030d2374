"""Chains: exact packs whose base is what another exact pack decodes to."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.checkpoints.containers.safetensors_file import SafetensorsCheckpoint
from dtscodec.checkpoints.open import MAX_CHAIN, open_checkpoint
from dtscodec.errors import BaseMismatchError, CheckpointError, ConfigError, DtsError

EXACT = dtscodec.EncodeConfig(preset=dtscodec.BaseOnly(), exact=True)


@pytest.fixture
def saves(tmp_path: Path) -> list[Path]:
    """Directories of a base and of saves of a training run."""
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(80, 60, generator=generator), "b": torch.randn(60, generator=generator)}
    paths = []
    for step in range(4):
        path = tmp_path / f"step{step}"
        path.mkdir()
        save_file(weights, path / "model.safetensors", {"step": str(step)})
        (path / "config.json").write_text(f'{{"model_type": "bert", "step": {step}}}')
        paths.append(path)
        weights = {name: w + 1e-3 * torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    return paths


@pytest.fixture
def chain(saves: list[Path], tmp_path: Path) -> list[Path]:
    """The base, and a pack of each save against the one before."""
    found = [saves[0]]
    for step, save in enumerate(saves[1:], start=1):
        pack = tmp_path / f"p{step}.safetensors"
        dtscodec.encode(found if step > 1 else found[0], save, pack, EXACT)
        found.append(pack)
    return found


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_each_link_restores_its_save_byte_for_byte(chain: list[Path], saves: list[Path], tmp_path: Path) -> None:
    for step in range(1, len(chain)):
        with dtscodec.decode(chain[step], chain[:step]) as decoded:
            decoded.save(tmp_path / f"back{step}")
        assert content(tmp_path / f"back{step}") == content(saves[step])


def test_a_link_names_the_pack_below_it(chain: list[Path]) -> None:
    ids = [dtscodec.info(path).pack_id for path in chain[1:]]
    bases = [dtscodec.info(path).base for path in chain[1:]]
    assert [base and base.pack for base in bases] == [None, *ids[:-1]]


def test_a_decoded_checkpoint_serves_as_well_as_its_pack(chain: list[Path], saves: list[Path], tmp_path: Path) -> None:
    with dtscodec.decode(chain[3], saves[2]) as decoded, open_checkpoint(saves[3]) as checkpoint:
        assert all(np.array_equal(decoded.read(name), checkpoint.read(name)) for name in decoded)


def test_fold_makes_one_pack_with_the_same_result(chain: list[Path], saves: list[Path], tmp_path: Path) -> None:
    report = dtscodec.fold(chain, tmp_path / "folded.safetensors")
    assert dtscodec.info(report.path).content == dtscodec.info(chain[-1]).content
    with dtscodec.decode(report.path, saves[0]) as decoded:
        decoded.save(tmp_path / "back")
    assert content(tmp_path / "back") == content(saves[-1])


def test_missing_and_foreign_links_are_errors(chain: list[Path], saves: list[Path], tmp_path: Path) -> None:
    wrong: list[list[Path]] = [
        [saves[0]],
        [saves[1], *chain[1:3]],
        [saves[0], chain[2]],
        [saves[0], chain[1], chain[1]],
    ]
    for paths in wrong:
        with pytest.raises((BaseMismatchError, CheckpointError)), dtscodec.decode(chain[3], paths) as decoded:
            decoded.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="without its base"):
        open_checkpoint(chain[1])
    with pytest.raises(CheckpointError), dtscodec.decode(chain[3], [*chain[:2], tmp_path / "absent"]):
        pass


def test_a_lossy_pack_is_no_link(saves: list[Path], tmp_path: Path) -> None:
    lossy = dtscodec.encode(saves[0], saves[1], tmp_path / "lossy.safetensors", dtscodec.EncodeConfig(dtscodec.Rank(2)))
    with pytest.raises(CheckpointError, match="not whole"):
        open_checkpoint([saves[0], lossy.path])


def test_the_depth_of_a_chain_is_bounded(chain: list[Path]) -> None:
    with pytest.raises(CheckpointError, match=str(MAX_CHAIN)):
        open_checkpoint([chain[0], *[chain[1]] * (MAX_CHAIN + 1)])


def test_a_damaged_link_is_noticed(chain: list[Path], tmp_path: Path) -> None:
    data = bytearray(chain[1].read_bytes())
    data[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    with pytest.raises(DtsError), dtscodec.decode(chain[2], [chain[0], tmp_path / "damaged.safetensors"]) as decoded:
        decoded.save(tmp_path / "out")


def test_fold_needs_a_chain(saves: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        dtscodec.fold([saves[0]], tmp_path / "out.safetensors")


def test_in_a_directory_the_chain_is_found(saves: list[Path], tmp_path: Path) -> None:
    directory = tmp_path / "series"
    base = Path(shutil.copytree(saves[0], directory / "base"))
    below = [base, directory / "packs" / "one.safetensors"]
    dtscodec.encode_all(base, {"one": saves[1]}, directory, EXACT)
    dtscodec.encode_all(below, {"two": saves[2]}, directory, EXACT)
    with dtscodec.decode(directory / "packs" / "two.safetensors") as decoded, open_checkpoint(saves[2]) as save:
        assert np.array_equal(decoded.read("w"), save.read("w"))
    # Without the pack below it, and without the base.
    two = Path(shutil.copy(directory / "packs" / "two.safetensors", tmp_path))
    with pytest.raises(BaseMismatchError, match=dtscodec.info(below[1]).pack_id), dtscodec.decode(two):
        pass
    shutil.rmtree(base)
    with pytest.raises(CheckpointError), dtscodec.decode(directory / "packs" / "two.safetensors"):
        pass


def test_each_tensor_of_the_base_is_read_once_however_long_the_chain(
    chain: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = SafetensorsCheckpoint.read

    def counted(self: SafetensorsCheckpoint, name: str) -> np.ndarray:
        read.append(name)
        return plain(self, name)

    monkeypatch.setattr(SafetensorsCheckpoint, "read", counted)
    with open_checkpoint(chain) as checkpoint:
        checkpoint.read("w")
    assert read == ["w"]
