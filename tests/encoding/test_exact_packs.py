"""Packs with a residual layer: bit for bit whatever the dtype, files byte for byte, and the front unchanged."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import dtscodec
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import BaseMismatchError, ConfigError, FormatError
from tests import models

NONE = dtscodec.EncodeConfig(preset=dtscodec.BaseOnly(), exact=True)
SIZE = dtscodec.EncodeConfig(dtscodec.Size.parse("2kB"), exact=True)
RANK = dtscodec.EncodeConfig(dtscodec.RankShare(0.1), exact=True)
PAPER = dtscodec.EncodeConfig(dtscodec.RankShare(0.1), dtscodec.Paper(), exact=True)
SEARCH = dtscodec.EncodeConfig(exact=True)
CONFIGS = {"none": NONE, "size": SIZE, "rank": RANK, "paper": PAPER, "search": SEARCH}


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file of a directory."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def assert_exact(pack: Path, base: Any, fine: Any, lossy: bool = False) -> None:
    with dtscodec.decode(pack, base, lossy=lossy) as decoded, open_checkpoint(fine) as checkpoint:
        assert {name: decoded.spec(name) for name in decoded} == dict(checkpoint.specs)
        for name in decoded:
            assert np.array_equal(decoded.read(name), checkpoint.read(name)), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_a_fine_tune_comes_back_bit_for_bit(config: dtscodec.EncodeConfig, dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {
        "w": torch.randn(70, 90, generator=generator).to(dtype),
        "e": torch.randn(300, 40, generator=generator).to(dtype),
        "n": torch.ones(64, dtype=dtype),
    }
    change = torch.randn(70, 4, generator=generator) @ torch.randn(4, 90, generator=generator)
    fine = {
        "w": (base["w"].float() + 0.01 * change).to(dtype),
        "e": (base["e"].float() * 0.99).to(dtype),
        "n": (base["n"].float() + 0.01 * torch.randn(64, generator=generator)).to(dtype),
        "new": torch.randn(3, 40, generator=generator).to(dtype),
    }
    report = dtscodec.encode(base, fine, tmp_path / "p.safetensors", config)
    assert report.residual is not None
    assert_exact(report.path, base, fine)
    dtscodec.verify(report.path, base)


def random_bytes(count: int, seed: int, dtype: torch.dtype) -> np.ndarray:
    """Random bytes of elements of a dtype, special ones among them: uint8 [count, bytes]."""
    return np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, (count, dtype.itemsize), np.uint8)


DTYPES = [
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e8m0fnu, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
    torch.uint16, torch.uint64,
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 2**20),
    changed=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_any_tensor_of_any_dtype_comes_back(
    dtype: torch.dtype, shape: list[int], seed: int, changed: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count = int(np.prod(shape, dtype=int))
    ours, theirs = random_bytes(count, seed, dtype), random_bytes(count, seed + 1, dtype)
    mask = np.random.default_rng(seed + 2).random(count) < changed
    mixed = np.where(mask[:, None], theirs, ours)
    old, new = ({"w": torch.from_numpy(x.ravel()).view(dtype).reshape(shape)} for x in (ours, mixed))
    out = tmp_path_factory.mktemp("any") / "p.safetensors"
    assert_exact(dtscodec.encode(old, new, out, NONE).path, old, new)


@pytest.mark.parametrize("config", [NONE, SEARCH], ids=["none", "search"])
def test_nan_payloads_infinities_and_minus_zero_are_kept(config: dtscodec.EncodeConfig, tmp_path: Path) -> None:
    base = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    fine = base + 0.01
    fine.view(torch.int32).view(-1)[:6] = torch.tensor([0x7FC00001, -0x7FFFFF, 0x7F800000, -0x800000, -(2**31), 1])
    fine[1, :3] = -0.0
    base.view(torch.int32).view(-1)[3:9] = 0x7F800123
    report = dtscodec.encode({"w": base}, {"w": fine}, tmp_path / "p.safetensors", config)
    assert_exact(report.path, {"w": base}, {"w": fine})


@pytest.mark.parametrize("config", [NONE, SIZE], ids=["none", "size"])
def test_safetensors_files_are_restored_byte_for_byte(config: dtscodec.EncodeConfig, tmp_path: Path) -> None:
    base, fine = {"b.w": torch.zeros(60, 40), "a.w": torch.ones(9)}, {"b.w": torch.rand(60, 40), "a.w": torch.rand(9)}
    (tmp_path / "base").mkdir()
    (tmp_path / "fine").mkdir()
    save_file(base, tmp_path / "base" / "model.safetensors")
    # Names that do not ascend, metadata, spaces after the header.
    save_file(fine, tmp_path / "fine" / "model.safetensors", {"format": "pt", "z": "a\u00e9"})
    (tmp_path / "fine" / "config.json").write_text('{"model_type": "bert"}')
    report = dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "p.safetensors", config)
    assert report.residual is not None
    assert report.residual.weight_files > 0
    with dtscodec.decode(report.path, tmp_path / "base") as decoded:
        decoded.save(tmp_path / "back")
        decoded.save(tmp_path / "back.safetensors")
    assert digests(tmp_path / "back") == digests(tmp_path / "fine")
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "fine" / "model.safetensors").read_bytes()


def test_shards_and_their_index_are_restored_byte_for_byte(tmp_path: Path) -> None:
    model = transformers.BertModel(models.bert_config())
    model.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.01)
    model.save_pretrained(tmp_path / "fine", max_shard_size="150KB")
    assert len(list((tmp_path / "fine").glob("*.safetensors"))) > 1
    report = dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "p.safetensors", NONE)
    with dtscodec.decode(report.path, tmp_path / "base") as decoded:
        decoded.save(tmp_path / "back")
        decoded.save(tmp_path / "one", shard_bytes=10**9)
    assert digests(tmp_path / "back") == digests(tmp_path / "fine")
    assert_exact(report.path, tmp_path / "base", tmp_path / "one")


def test_of_other_files_only_the_tensors_are_restored(tmp_path: Path) -> None:
    base, fine = {"w": torch.zeros(30, 40)}, {"w": torch.rand(30, 40)}
    torch.save(fine, tmp_path / "fine.bin")
    report = dtscodec.encode(base, tmp_path / "fine.bin", tmp_path / "p.safetensors", NONE)
    assert report.residual is not None
    assert report.residual.weight_files == 0
    assert_exact(report.path, base, tmp_path / "fine.bin")


@pytest.mark.parametrize("config", [SIZE, RANK, PAPER, NONE], ids=["size", "rank", "paper", "none"])
def test_strip_gives_the_pack_of_a_lossy_encode(config: dtscodec.EncodeConfig, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    base = {"w": torch.randn(64, 80, generator=generator), "v": torch.randn(50, generator=generator)}
    fine = {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in base.items()}
    exact = dtscodec.encode(base, fine, tmp_path / "exact.safetensors", config)
    lossy = dtscodec.encode(base, fine, tmp_path / "lossy.safetensors", config.without_residual())
    assert exact.residual is not None
    assert exact.residual.front_bytes == lossy.pack_bytes
    assert dtscodec.strip(exact.path, tmp_path / "stripped.safetensors") == lossy.pack_id
    assert (tmp_path / "stripped.safetensors").read_bytes() == lossy.path.read_bytes()
    # The other way: the layer is added to the lossy pack.
    dtscodec.add_residual(lossy.path, base, fine, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == exact.path.read_bytes()
    with (
        dtscodec.decode(exact.path, base, lossy=True) as ours,
        dtscodec.decode(lossy.path, base) as theirs,
        open_checkpoint(fine) as checkpoint,
    ):
        assert all(np.array_equal(ours.read(name), theirs.read(name)) for name in ours)
        assert not all(np.array_equal(ours.read(name), checkpoint.read(name)) for name in ours)


def test_the_size_of_the_codes_makes_the_whole_smallest(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    base = {"w": torch.randn(256, 256, generator=generator).bfloat16()}
    change = torch.randn(256, 2, generator=generator) @ torch.randn(2, 256, generator=generator)
    fine = {"w": (base["w"].float() + 0.3 * change).bfloat16()}
    report = dtscodec.encode(base, fine, tmp_path / "p.safetensors", SEARCH)
    assert report.residual is not None
    assert len(report.residual.trials) > 1
    assert report.pack_bytes == min(report.residual.trials.values()) == report.path.stat().st_size
    assert set(report.residual.chunks) == {"delta"}


def test_damage_anywhere_in_the_layer_is_noticed(tmp_path: Path) -> None:
    base = {"w": torch.randn(200, 300)}
    fine = {"w": base["w"] * 1.01}
    path = dtscodec.encode(base, fine, tmp_path / "p.safetensors", NONE).path
    data = path.read_bytes()
    with dtscodec.open(path) as pack:
        front = pack.reader.front_bytes
    for at in np.linspace(front, len(data) - 1, 60).astype(int).tolist():
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(FormatError), dtscodec.decode(bytes(damaged), base) as decoded:
            decoded.read("w")
        # The front does not depend on it.
        with dtscodec.decode(bytes(damaged), base, lossy=True) as decoded:
            decoded.read("w")
    for end in (front, front + 40, len(data) - 1):
        with pytest.raises(FormatError), dtscodec.decode(data[:end], base) as decoded:
            decoded.read("w")


def test_another_base_is_refused_before_anything_is_published(tmp_path: Path) -> None:
    base, fine = {"w": torch.randn(40, 30)}, {"w": torch.randn(40, 30)}
    path = dtscodec.encode(base, fine, tmp_path / "p.safetensors", NONE).path
    other = {"w": base["w"] + 1}
    with pytest.raises(BaseMismatchError), dtscodec.decode(path, other) as decoded:
        decoded.save(tmp_path / "out.safetensors")
    # Without the check of the base, the content gives it away.
    with pytest.raises(FormatError) as caught, dtscodec.decode(path, other, check=False) as decoded:
        decoded.save(tmp_path / "out.safetensors")
    assert caught.value.reason in ("content", "residual")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_residual_layer_is_not_added_twice_nor_to_another_fine_tune(tmp_path: Path) -> None:
    base, fine = {"w": torch.randn(40, 30)}, {"w": torch.randn(40, 30)}
    exact = dtscodec.encode(base, fine, tmp_path / "p.safetensors", NONE).path
    with pytest.raises(ConfigError):
        dtscodec.add_residual(exact, base, fine, tmp_path / "q.safetensors")
    lossy = dtscodec.encode(base, fine, tmp_path / "l.safetensors").path
    with pytest.raises(ConfigError):
        dtscodec.strip(lossy, tmp_path / "q.safetensors")
    with pytest.raises(ConfigError):
        dtscodec.add_residual(lossy, base, {"v": fine["w"]}, tmp_path / "q.safetensors")
    with pytest.raises(BaseMismatchError):
        dtscodec.add_residual(lossy, {"w": base["w"] + 1}, fine, tmp_path / "q.safetensors")
    assert not (tmp_path / "q.safetensors").exists()


def test_experts_grown_vocabularies_and_ties(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    base = {"e": torch.randn(4, 40, 50, generator=generator), "v": torch.randn(100, 32, generator=generator)}
    grown = torch.cat([base["v"] + 0.01 * torch.randn(100, 32, generator=generator), torch.randn(5, 32)])
    fine = {"e": base["e"] * 1.001, "v": grown, "tied": grown}
    for name, config in CONFIGS.items():
        report = dtscodec.encode(base, fine, tmp_path / f"{name}.safetensors", config)
        assert_exact(report.path, base, fine)


def test_a_base_of_another_dtype(tmp_path: Path) -> None:
    base = {"w": torch.randn(60, 70, generator=torch.Generator().manual_seed(5))}
    fine = {"w": (base["w"] + 0.001).bfloat16()}
    for name, config in CONFIGS.items():
        report = dtscodec.encode(base, fine, tmp_path / f"{name}.safetensors", config)
        assert_exact(report.path, base, fine)


def test_several_fine_tunes_go_into_a_directory(tmp_path: Path) -> None:
    base = {"w": torch.randn(40, 30)}
    reports = dtscodec.encode_all(base, {"a": {"w": base["w"] + 1}, "b": {"w": base["w"] * 2}}, tmp_path, NONE)
    for report in reports.values():
        assert report.residual is not None
    assert json.loads((tmp_path / "dtscodec.json").read_text())["packs"]["a"]["id"] == reports["a"].pack_id
