"""Deltas at the edges of what can be stored, and settings of torch that must not matter."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtscodec
from dtscodec import EncodeConfig
from dtscodec.errors import EncodeError, FormatError
from dtscodec.packs.byte_counts import tensor_sizes
from tests.encoding.published import published_quantizer
from tests.support import CODING, assert_equals_reference, make_pack, spec_decoder, spec_tensors


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_decode_as_published_whatever_share_of_elements_changed(
    share: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    base = torch.randn(24, 6, 5, 5).to(dtype)
    changed = torch.rand(base.shape) < share
    fine = torch.where(changed, base + 0.5 * torch.randn(base.shape).to(dtype), base)
    make_pack({"c": base}, {"c": fine}, tmp_path / "p", preset=dtscodec.Paper())
    true = fine.float() - base.float()
    with dtscodec.open(tmp_path / "p") as pack, dtscodec.decode(pack, {"c": base}) as decoded:
        assert np.allclose(pack.delta("c"), published_quantizer(true.numpy()), rtol=1e-5)
        assert torch.equal(decoded["c"][true == 0], base[true == 0])


@pytest.mark.parametrize("settings", CODING.values(), ids=CODING)
def test_a_delta_too_large_for_float32_is_refused_with_a_way_out(settings: dict[str, Any], tmp_path: Path) -> None:
    fine = {"a[0].w": torch.randn(64, 64) * 3e37}
    with pytest.raises(EncodeError, match=r"a\[0\]\.w: .*raw=\['a\[\[\]0\]\.w'\]"):
        dtscodec.encode({"a[0].w": torch.zeros(64, 64)}, fine, tmp_path / "p", EncodeConfig(**settings))
    make_pack({"a[0].w": torch.zeros(64, 64)}, fine, tmp_path / "p", raw=("a[[]0].w",), **settings)


@pytest.mark.parametrize(("preset", "least", "most"), [(dtscodec.Paper(), 0.4, 0.7), (dtscodec.Best(), 0.15, 0.3)])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e25])
def test_deltas_of_any_ordinary_size_are_coded(
    scale: float, preset: dtscodec.Best | dtscodec.Paper, least: float, most: float, tmp_path: Path
) -> None:
    base = torch.zeros(64, 64)
    report = make_pack(
        {"w": base}, {"w": torch.randn(64, 64) * scale}, tmp_path / "p", preset=preset, target=dtscodec.RankShare(1.0)
    )
    assert least < report.relative_error < most


def test_the_precision_that_torch_is_set_to_does_not_matter(tmp_path: Path) -> None:
    base = {"w": torch.randn(300, 300)}
    path = make_pack(
        base, {"w": base["w"] + torch.randn(300, 300)}, tmp_path / "p", target=dtscodec.RankShare(0.5)
    ).path
    reference = spec_decoder.Pack(path.read_bytes())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu"), dtscodec.decode(path, base) as decoded:
            assert_equals_reference(reference, "w", decoded.read("w"), spec_tensors(base))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_hostile_pack_makes_no_large_delta(tmp_path: Path) -> None:
    base = {"w": torch.randn(64, 64)}
    path = make_pack(base, {"w": base["w"] + torch.randn(64, 64)}, tmp_path / "p", target=dtscodec.RankShare(0.1)).path
    with dtscodec.open(path) as pack, pytest.raises(FormatError) as caught:
        pack.delta("w", max_tensor_bytes=1000)
    assert caught.value.reason == "limit"


def test_a_base_is_used_for_files_even_if_no_tensor_needs_it(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("base", "fine"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.randn(64, 64)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"layers": 1}')
    path = make_pack(tmp_path / "base", tmp_path / "fine", tmp_path / "p", raw=("*",)).path
    with dtscodec.decode(path, tmp_path / "base") as decoded:
        decoded.save(tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == '{"layers": 1}'


def test_patterns_must_be_several_not_a_string() -> None:
    with pytest.raises(ValueError, match="tuple of patterns"):
        EncodeConfig(raw="head*")  # type: ignore[arg-type]


def test_an_integer_of_numpy_is_a_rank_too() -> None:
    assert dtscodec.Rank(np.int64(1)).of(100, 100) == 1


@pytest.mark.parametrize("settings", CODING.values(), ids=CODING)
def test_decoding_values_beyond_float32_does_not_warn(settings: dict[str, Any], tmp_path: Path) -> None:
    base = {"w": torch.randn(64, 64)}
    path = make_pack(base, {"w": base["w"] + torch.randn(64, 64) * 1e18}, tmp_path / "p", **settings).path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with dtscodec.decode(path, base) as decoded:
            assert decoded["w"].isfinite().all()


def test_a_delta_beyond_float32_is_refused_with_a_way_out(tmp_path: Path) -> None:
    base, fine = ({"w": torch.full((40, 40), value)} for value in (1.0, 3e38))
    with pytest.raises(EncodeError, match=r"store it exactly with raw=\['w'\]"):
        dtscodec.encode(base, fine, tmp_path / "p", EncodeConfig(target=dtscodec.Rank(1)))
    make_pack(base, fine, tmp_path / "p", raw=("w",))


@pytest.mark.parametrize("settings", CODING.values(), ids=CODING)
def test_a_zero_that_changed_its_sign_is_no_change_unless_bytes_are_asked_for(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    base = {"w": torch.randn(64, 64)}
    base["w"][::2] = -0.0
    fine = {"w": base["w"] + 0}
    assert base["w"].signbit().ne(fine["w"].signbit()).any()
    for raw, kind in (((), "same"), (("w",), "raw")):
        report = make_pack(base, fine, tmp_path / kind, raw=raw, **settings)
        with dtscodec.open(report.path) as pack:
            assert [tensor.kind for tensor in tensor_sizes(pack)] == [kind]
