"""Merges of quantized checkpoints: refused, read dequantized, or said to be copies."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dtscodec
from dtscodec.errors import MergeError

Tensors = dict[str, torch.Tensor]


def plain(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{i}.weight": torch.randn(16, 24, generator=generator).bfloat16() for i in range(2)} | {
        "norm.weight": torch.randn(16, generator=generator).bfloat16()
    }


def int8(tensors: Tensors) -> Tensors:
    result: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            result[name] = tensor
            continue
        scale = tensor.float().abs().amax(1, keepdim=True) / 127
        result |= {name: (tensor / scale).round().to(torch.int8), f"{name}_scale": scale.bfloat16()}
    return result


def dequantized(tensors: Tensors) -> Tensors:
    with dtscodec.Base(tensors, dequantize=True) as base:
        read = {name: torch.from_numpy(base.read(name).copy()).view(torch.bfloat16) for name in base.specs}
        return {name: tensor.reshape(base.specs[name].shape) for name, tensor in read.items()}


def test_a_quantized_base_of_plain_fine_tunes_is_refused_with_the_option_that_reads_it(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match=r"got 2 weights of int8.*read the base dequantized with dequantize_base=True"):
        dtscodec.merge([plain(1), plain(2)], tmp_path / "out", "task-arithmetic", int8(plain(0)))


def test_a_base_read_dequantized_merges_as_the_plain_one(tmp_path: Path) -> None:
    fine_tunes, base = [plain(1), plain(2)], int8(plain(0))
    out = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    report = dtscodec.merge(fine_tunes, out[0], "task-arithmetic", base, dequantize_base=True)
    dtscodec.merge(fine_tunes, out[1], "task-arithmetic", dequantized(base))
    assert len(report.merged) == 3
    one, two = map(load_file, out)
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_quantized_fine_tunes_of_a_plain_base_are_refused_unless_their_weights_are_left_out(tmp_path: Path) -> None:
    fine_tunes = [int8(plain(1)), int8(plain(2))]
    with pytest.raises(MergeError, match=r"expected weights quantized like the fine-tune's, .*, got BF16"):
        dtscodec.merge(fine_tunes, tmp_path / "out", "task-arithmetic", plain(0))
    out = tmp_path / "out.safetensors"
    report = dtscodec.merge(fine_tunes, out, "task-arithmetic", plain(0), raw=["layers.*"])
    assert report.merged == ("norm.weight",)


def test_quantized_weights_that_are_copied_are_counted(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        save_file(int8(plain(seed)), tmp_path / f"{name}.safetensors")
    first = tmp_path / "a.safetensors"
    report = dtscodec.merge([first, tmp_path / "b.safetensors"], tmp_path / "out.safetensors")
    (note,) = report.notes
    assert note.names == ("layers.0.weight", "layers.1.weight")
    assert note.text == f"2 quantized weights (94.1 % of the parameters) are copied from {first}, not merged"


def test_a_family_of_fine_tunes_of_a_quantized_base_reads_it_dequantized(tmp_path: Path) -> None:
    config = dtscodec.EncodeConfig(dequantize_base=True, target=dtscodec.Size.parse("50%"))
    fine_tunes = {"a": plain(1), "b": plain(2)}
    report = dtscodec.encode_family(fine_tunes, tmp_path, "task-arithmetic", int8(plain(0)), config=config)
    assert report.base is not None
    assert len(report.base.merged) == 3
