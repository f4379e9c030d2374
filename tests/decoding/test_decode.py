"""Decoding: lazy, of any dtype and device, and never from the wrong base."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.errors import BackendError, BaseMismatchError, FormatError
from dtscodec.files.range_reader import LocalFile
from dtscodec.format.dtypes import TensorSpec
from dtscodec.packs.pack import Pack
from tests.support import CODING, assert_equals_reference, make_pack, spec_decoder, spec_tensors

ACCELERATOR = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def checkpoint(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "bias": torch.randn(90, generator=random),
        "double": torch.randn(50, 40, generator=random, dtype=torch.float64),
        "half": torch.randn(64, 64, generator=random).half(),
        "ids": torch.arange(7),
        "weight": torch.randn(90, 70, generator=random).bfloat16(),
        "wide": torch.randn(130, 257, generator=random),
    }


def fine_tuned(base: dict[str, torch.Tensor], seed: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    fine = {}
    for name, tensor in base.items():
        noise = torch.randn(tensor.shape, generator=random) * 0.05
        fine[name] = tensor if name == "ids" else (tensor + noise.to(tensor.dtype)).to(tensor.dtype)
    fine["wide"][:20] = base["wide"][:20]
    fine["head"] = torch.randn(3, 70, generator=random)
    return fine


@pytest.fixture
def base() -> dict[str, torch.Tensor]:
    return checkpoint()


@pytest.fixture(params=list(CODING.values()), ids=list(CODING))
def pack(request: pytest.FixtureRequest, base: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    return make_pack(base, fine_tuned(base), tmp_path / "task.safetensors", **request.param).path


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            str(ACCELERATOR), marks=pytest.mark.skipif(ACCELERATOR is None, reason="torch finds no accelerator here")
        ),
    ],
)
def test_every_device_decodes_within_the_bound_of_the_spec(
    pack: Path, base: dict[str, torch.Tensor], device: str
) -> None:
    reference = spec_decoder.Pack(pack.read_bytes())
    with dtscodec.decode(pack, base, device=device) as decoded:
        for name in decoded:
            assert decoded[name].device.type == torch.device(device).type
            assert_equals_reference(reference, name, decoded.read(name), spec_tensors(base))


def test_a_device_that_does_not_exist_is_an_error_of_its_own(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with pytest.raises(BackendError, match="device"):
        dtscodec.decode(pack, base, device="cuda:99")


def test_only_floating_point_tensors_are_converted_to_another_dtype(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with dtscodec.decode(pack, base) as own, dtscodec.decode(pack, base, dtype=torch.bfloat16) as decoded:
        for name in decoded:
            expected = own[name] if name == "ids" else own[name].float().bfloat16()
            assert torch.equal(decoded[name], expected)


def test_one_tensor_is_decoded_from_its_byte_range_alone(
    base: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = {f"t{i}": torch.randn(256, 1024) for i in range(8)}
    fine = {name: tensor + torch.randn_like(tensor) for name, tensor in big.items()}
    path = make_pack(big, fine, tmp_path / "p", raw=("*",)).path
    read: list[int] = []
    original = LocalFile.read

    def counting(self: LocalFile, offset: int, length: int) -> bytes:
        read.append(length)
        return original(self, offset, length)

    monkeypatch.setattr(LocalFile, "read", counting)
    with dtscodec.decode(path, {}) as decoded:
        assert torch.equal(decoded["t3"], fine["t3"])
    assert sum(read) < path.stat().st_size / 4


def test_a_pack_of_bytes_in_memory_decodes_too(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with dtscodec.decode(pack.read_bytes(), base) as a, dtscodec.decode(pack, base) as b:
        assert all(torch.equal(a[name], b[name]) for name in b)


def test_a_wrong_base_tensor_is_refused_when_it_is_used_and_not_before(
    pack: Path, base: dict[str, torch.Tensor]
) -> None:
    base["wide"] = base["wide"].clone()
    base["wide"][0, 0] += 1
    with dtscodec.decode(pack, base) as decoded:
        decoded["weight"]
        with pytest.raises(BaseMismatchError) as caught:
            decoded["wide"]
    assert caught.value.reason == "base-leaf"
    assert "wide" in str(caught.value)


def test_unused_tensors_of_the_base_do_not_matter(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with dtscodec.decode(pack, base | {"more": torch.ones(2)}) as decoded:
        assert len([decoded[name] for name in decoded]) == 7


def test_a_base_of_other_shape_is_refused(pack: Path, base: dict[str, torch.Tensor]) -> None:
    base["wide"] = base["wide"][:100]
    with dtscodec.decode(pack, base, check=False) as decoded, pytest.raises(BaseMismatchError) as caught:
        decoded["wide"]
    assert caught.value.reason == "base-tensor"


def test_without_a_base_the_error_has_a_remedy(pack: Path) -> None:
    with dtscodec.decode(pack) as decoded, pytest.raises(BaseMismatchError, match="`base`"):
        decoded["wide"]


def test_files_that_are_the_bases_need_a_base(tmp_path: Path) -> None:
    for name in ("base", "fine"):
        state = {"weight": torch.ones(2, 2) if name == "base" else torch.zeros(2, 2)}
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "model.safetensors")
        (tmp_path / name / "vocab.txt").write_text("one\ntwo\n")
    dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", dtscodec.EncodeConfig(raw=("*",)))
    with dtscodec.decode(tmp_path / "pack") as decoded:
        assert decoded["weight"].equal(torch.zeros(2, 2))
        with pytest.raises(BaseMismatchError, match="name it with `base`"):
            decoded.files()
    with dtscodec.decode(tmp_path / "pack", tmp_path / "base") as decoded:
        assert decoded.files() == {"vocab.txt": b"one\ntwo\n"}


def test_a_pack_without_base_needs_none(tmp_path: Path) -> None:
    fine = {"new": torch.randn(4, 5)}
    base = {"old": torch.randn(400, 500), "new": torch.randn(4, 5)}
    path = make_pack(base, fine, tmp_path / "p", raw=("*",)).path
    with dtscodec.decode(path) as decoded:
        assert torch.equal(decoded["new"], fine["new"])


def test_a_tensor_larger_than_the_caller_allows_is_refused(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with dtscodec.decode(pack, base, max_tensor_bytes=1000) as decoded:
        assert decoded["bias"].numel() == 90
        with pytest.raises(FormatError) as caught:
            decoded["wide"]
    assert caught.value.reason == "limit"


def test_many_threads_may_decode_at_once(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with dtscodec.decode(pack, base) as decoded:
        alone = {name: decoded[name] for name in decoded}
        failures: list[object] = []

        def work() -> None:
            for name, tensor in alone.items():
                if not torch.equal(decoded[name], tensor):
                    failures.append(name)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_decoding_writes_to_no_tensor_of_the_base(pack: Path, base: dict[str, torch.Tensor]) -> None:
    copies = {name: tensor.clone() for name, tensor in base.items()}
    with dtscodec.decode(pack, base) as decoded:
        for name in decoded:
            decoded[name].zero_()
    assert all(torch.equal(base[name], copies[name]) for name in base)


def test_a_base_is_hashed_once_for_several_packs(
    base: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        make_pack(base, fine_tuned(base, seed), tmp_path / f"p{seed}", target=dtscodec.RankShare(0.1)).path
        for seed in (1, 2)
    ]
    from dtscodec.checkpoints import base as base_module
    from dtscodec.format.content_digest import leaf

    hashed: list[object] = []
    original = leaf

    def counting(spec: TensorSpec, data: np.ndarray) -> bytes:
        hashed.append(spec)
        return original(spec, data)

    monkeypatch.setattr(base_module, "leaf", counting)
    with dtscodec.Base(base) as shared:
        for path in paths:
            with dtscodec.decode(path, shared) as decoded:
                for name in decoded:
                    decoded[name]
    assert len(hashed) == 6  # each tensor of the base that is used


def test_an_open_pack_stays_open_for_its_owner(pack: Path, base: dict[str, torch.Tensor]) -> None:
    with Pack(pack) as opened:
        with dtscodec.decode(opened, base) as decoded:
            decoded["bias"]
        assert opened.delta("bias").shape == (90,)
