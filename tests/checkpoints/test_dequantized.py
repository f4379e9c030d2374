"""Quantized checkpoints read dequantized equal the dequantization of the libraries that quantized them, bit for bit."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import DType

State = dict[str, Tensor]
DTYPES: dict[DType, torch.dtype] = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def saved(folder: Path, state: State, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(path: Path, dtype: DType = "BF16") -> State:
    """All tensors of a checkpoint, dequantized."""
    with Base(path, dequantize=dtype) as base:
        return {name: StoredTensor(name, spec, base.read(name)).tensor().clone() for name, spec in base.specs.items()}


def assert_bits(found: Tensor, expected: Tensor) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert torch.equal(found.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))


def fp8(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Codes and scales of blocks, which may be cut at the edges."""
    rows, columns = weight.shape
    scales = torch.empty(math.ceil(rows / block[0]), math.ceil(columns / block[1]))
    codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1])
            scales[i, j] = weight[part].abs().max() / 448
            codes[part] = (weight[part] / scales[i, j]).to(torch.float8_e4m3fn)
    return codes, scales


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu, torch.uint8])
def test_block_fp8_is_as_in_transformers(dtype: DType, scale_dtype: torch.dtype, tmp_path: Path) -> None:
    library = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes, scales = fp8(torch.randn(64, 96) * 0.02, (16, 32))
    exponents = (torch.log2(scales).ceil() + 127).to(torch.uint8)
    scales = {
        torch.uint8: exponents,
        torch.float8_e8m0fnu: exponents.view(torch.float8_e8m0fnu),
    }.get(scale_dtype, scales.to(scale_dtype))
    expected = library.Fp8Dequantize(None)._dequantize_one(codes, scales, output_dtype=DTYPES[dtype])
    state = {"q.weight": codes, "q.weight_scale_inv": scales, "q.bias": torch.ones(64), "norm.weight": torch.ones(3)}
    found = read(saved(tmp_path / "m", state, quantization_config={"quant_method": "fp8"}), dtype)
    assert found.keys() == {"q.weight", "q.bias", "norm.weight"}
    if scale_dtype == torch.bfloat16:
        # The product is a bfloat16 first; transformers rounds once where it knows the dtype of the result.
        expected = library.Fp8Dequantize(None)._dequantize_one(codes, scales).to(DTYPES[dtype])
    assert_bits(found["q.weight"], expected)


def test_stacked_fp8_experts_are_as_in_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes, scales = zip(*(fp8(torch.randn(32, 64), (16, 16)) for _ in range(3)), strict=True)
    state = {"experts.up": torch.stack(codes), "experts.up_scale_inv": torch.stack(scales)}
    expected = library.Fp8Dequantize(None)._dequantize_one(*state.values(), output_dtype=torch.bfloat16)
    assert_bits(read(saved(tmp_path / "m", state))["experts.up"], expected)


def test_blocks_of_fp8_that_are_cut_at_the_edges_are_those_of_the_configuration(tmp_path: Path) -> None:
    codes, scales = fp8(torch.randn(40, 50), (16, 32))
    state = {"q.weight": codes, "q.weight_scale_inv": scales}
    found = read(saved(tmp_path / "m", state, quantization_config={"weight_block_size": [16, 32]}), "F32")
    wide = scales.repeat_interleave(16, 0)[:40].repeat_interleave(32, 1)[:, :50]
    assert_bits(found["q.weight"], codes.float() * wide)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(16, 128), (48, 40), (10, 7), (33, 130)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_four_bits_are_as_in_bitsandbytes(
    kind: str, nested: bool, shape: tuple[int, int], dtype: DType, tmp_path: Path
) -> None:
    library = pytest.importorskip("bitsandbytes.functional")
    weight = (torch.randn(shape) * 0.03).to(DTYPES[dtype])
    codes, quantized = library.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    expected = library.dequantize_4bit(codes, quantized)
    state = {"fc.weight": codes} | {f"fc.weight.{name}": part for name, part in quantized.as_dict(packed=True).items()}
    found = read(saved(tmp_path / "m", state), dtype)
    assert found.keys() == {"fc.weight"}
    # The library's kernels disagree on the sign of the second zero of fp4; the map in the checkpoint has one.
    assert_bits(found["fc.weight"] + 0.0, expected + 0.0)


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])
def test_four_bits_in_a_container_of_floats_are_as_in_bitsandbytes(storage: torch.dtype, tmp_path: Path) -> None:
    library = pytest.importorskip("bitsandbytes.functional")
    codes, quantized = library.quantize_4bit(torch.randn(32, 64).bfloat16(), quant_type="nf4", quant_storage=storage)
    state = {"fc.weight": codes} | {f"fc.weight.{name}": part for name, part in quantized.as_dict(packed=True).items()}
    assert_bits(read(saved(tmp_path / "m", state))["fc.weight"], library.dequantize_4bit(codes, quantized))


@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_is_as_in_bitsandbytes(dtype: DType, tmp_path: Path) -> None:
    library = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(48, 64)
    scb = weight.abs().amax(dim=1)
    codes = (weight / scb[:, None] * 127).round().to(torch.int8)
    state = {"fc.weight": codes, "fc.SCB": scb, "fc.weight_format": torch.zeros((), dtype=torch.uint8)}
    found = read(saved(tmp_path / "m", state), dtype)
    assert found.keys() == {"fc.weight"}
    assert_bits(found["fc.weight"], library.int8_vectorwise_dequant(codes, scb).to(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_experts_of_gpt_oss_are_as_in_transformers(dtype: DType, tmp_path: Path) -> None:
    library = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = torch.randint(0, 256, (3, 24, 2, 16), dtype=torch.uint8)
    scales = torch.randint(110, 132, (3, 24, 2), dtype=torch.uint8)
    state = {"experts.down_proj_blocks": blocks, "experts.down_proj_scales": scales}
    state |= {"experts.down_proj_bias": torch.ones(3, 24), "attn.sinks": torch.ones(4)}
    found = read(saved(tmp_path / "m", state), dtype)
    assert found.keys() == {"experts.down_proj", "experts.down_proj_bias", "attn.sinks"}
    assert_bits(found["experts.down_proj"], library.convert_moe_packed_tensors(blocks, scales, dtype=DTYPES[dtype]))


def state_of(shape: Sequence[float], dtype: str = "bfloat16", block: int = 64) -> bytes:
    return json.dumps({"shape": list(shape), "dtype": dtype, "blocksize": block}).encode()


@pytest.mark.parametrize(
    "state",
    [
        *(b"{", b"[]", b'{"shape": [4, 4]}'),
        *(state_of([-4, -32]), state_of([4, 33]), state_of([1e99]), state_of([1] * 9 + [128])),
        *(state_of([128], "int8"), state_of([128], block=0), state_of([128], block=-64)),
    ],
)
def test_a_damaged_quantization_state_is_refused(state: bytes, tmp_path: Path) -> None:
    parts = {
        "w": torch.zeros(64, 1, dtype=torch.uint8),
        "w.absmax": torch.ones(2),
        "w.quant_map": torch.ones(16),
        "w.quant_state.bitsandbytes__nf4": torch.tensor(list(state), dtype=torch.uint8),
    }
    with pytest.raises(CheckpointError):
        read(saved(tmp_path / "m", parts))


# --- compressed-tensors ---


def compressed(form: str, weight: Tensor, parameters: State, **weights: Any) -> tuple[State, Tensor]:
    """A module as compressed-tensors stores it, and its weight as it decompresses it."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    scheme = quantization.QuantizationScheme(
        targets=["Linear"], weights=quantization.QuantizationArgs(**weights), format=form
    )
    kind = compressors.BaseCompressor.get_value_from_registry(form)
    stored = kind.compress({"weight": weight} | parameters, scheme)
    return stored, kind.decompress(dict(stored), scheme)["weight"]


def check_compressed(tmp_path: Path, state: State, expected: Tensor, **weights: Any) -> None:
    section = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    path = saved(tmp_path / "m", {f"l.o.{name}": tensor for name, tensor in state.items()}, quantization_config=section)
    found = read(path)
    assert found.keys() == {"l.o.weight"}
    assert_bits(found["l.o.weight"], expected.bfloat16())


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [64, 96])
def test_packed_integers_are_as_in_compressed_tensors(bits: int, symmetric: bool, columns: int, tmp_path: Path) -> None:
    weight, group = torch.randn(24, columns).bfloat16(), 32
    half = 2 ** (bits - 1)
    parts = weight.float().view(24, -1, group)
    low, high = parts.amin(dim=2), parts.amax(dim=2)
    scale = (parts.abs().amax(dim=2) / (half - 0.5)) if symmetric else (high - low) / (2 * half - 1)
    zero = torch.zeros_like(scale) if symmetric else (-half - low / scale).round().clamp(-half, half - 1)
    parameters = {"weight_scale": scale.bfloat16(), "weight_zero_point": zero.to(torch.int8)}
    settings_ = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
    state, expected = compressed("pack-quantized", weight, parameters, **settings_)
    check_compressed(tmp_path, state, expected, **settings_)


@pytest.mark.parametrize(
    ("form", "more"),
    [
        ("float-quantized", {"type": "float", "strategy": "channel"}),
        ("float-quantized", {"type": "float", "strategy": "tensor"}),
        ("float-quantized", {"type": "float", "strategy": "block", "block_structure": [16, 32]}),
        ("int-quantized", {"type": "int", "strategy": "channel"}),
        ("int-quantized", {"type": "int", "strategy": "channel", "symmetric": False}),
    ],
)
def test_eight_bits_are_as_in_compressed_tensors(form: str, more: dict[str, Any], tmp_path: Path) -> None:
    weight = torch.randn(24, 70).bfloat16()
    shape = {"channel": (24, 1), "tensor": (1,), "block": (2, 3)}[more["strategy"]]
    scale = (torch.rand(shape) * 0.01 + 0.01).bfloat16()
    parameters: State = {"weight_scale": scale}
    if not more.get("symmetric", True):
        parameters["weight_zero_point"] = torch.randint(-20, 20, shape, dtype=torch.int8)
    settings_ = {"num_bits": 8, "symmetric": True} | more
    state, expected = compressed(form, weight, parameters, **settings_)
    check_compressed(tmp_path, state | {"input_scale": torch.ones(1)}, expected, **settings_)


@pytest.mark.parametrize("form", ["nvfp4-pack-quantized", "mxfp4-pack-quantized"])
def test_four_bit_floats_are_as_in_compressed_tensors(form: str, tmp_path: Path) -> None:
    weight = torch.randn(16, 128).bfloat16()
    if form.startswith("nv"):
        whole = torch.tensor([37.7])
        scale = (weight.float().view(16, -1, 16).abs().amax(dim=2) / 6 * whole).to(torch.float8_e4m3fn).float()
        parameters = {"weight_scale": scale, "weight_global_scale": whole}
        more: dict[str, Any] = {"strategy": "tensor_group", "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"}
    else:
        parameters = {"weight_scale": torch.exp2(torch.randint(-9, 3, (16, 4)).float())}
        more = {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
    settings_ = {"num_bits": 4, "type": "float", "symmetric": True} | more
    state, expected = compressed(form, weight, parameters, **settings_)
    check_compressed(tmp_path, state | {"input_global_scale": torch.ones(1)}, expected, **settings_)
