"""Companions of quantized weights, found by their place and their name in the layouts of the libraries."""

import time

import pytest
import torch

from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.quantized.companions import companions_of
from dtscodec.checkpoints.quantized.find_quantization import find_quantization
from dtscodec.format.dtypes import DType, TensorSpec

LAYOUTS: dict[str, dict[str, tuple[DType, bool]]] = {
    "fp8 of vLLM": {
        "l.q_proj.weight": ("F8_E4M3", False),
        "l.q_proj.weight_scale": ("F32", True),
        "l.q_proj.input_scale": ("F32", True),
        "l.q_proj.bias": ("BF16", False),
        "l.attn.k_scale": ("F32", True),
        "l.attn.v_scale": ("F32", True),
    },
    "fp8 experts": {
        "experts.gate_up_proj": ("F8_E4M3", False),
        "experts.gate_up_proj_scale_inv": ("F32", True),
        "experts.gate_up_proj_bias": ("BF16", False),
        "router.weight": ("BF16", False),
        "router.e_score_correction_bias": ("F32", False),
    },
    "bitsandbytes nf4": {
        "fc.weight": ("U8", False),
        "fc.weight.absmax": ("U8", False),
        "fc.weight.quant_map": ("F32", True),
        "fc.weight.nested_absmax": ("F32", True),
        "fc.weight.nested_quant_map": ("F32", True),
        "fc.weight.quant_state.bitsandbytes__nf4": ("U8", False),
        "fc.bias": ("F16", False),
    },
    "bitsandbytes nf4 in bf16 storage": {
        "fc.weight": ("BF16", True),
        "fc.weight.absmax": ("F32", True),
        "fc.weight.quant_map": ("F32", True),
        "fc.weight.quant_state.bitsandbytes__nf4": ("U8", False),
        "norm.weight": ("BF16", False),
    },
    "bitsandbytes int8": {"fc.weight": ("I8", False), "fc.SCB": ("F32", True), "fc.weight_format": ("U8", False)},
    "GPTQ": {
        "up.qweight": ("I32", False),
        "up.qzeros": ("I32", False),
        "up.scales": ("F16", True),
        "up.g_idx": ("I32", False),
        "up.bias": ("F16", False),
    },
    "compressed-tensors": {
        "o.weight_packed": ("I32", False),
        "o.weight_scale": ("BF16", True),
        "o.weight_zero_point": ("I32", False),
        "o.weight_shape": ("I64", False),
        "o.input_global_scale": ("F32", True),
        "o.weight_global_scale": ("F32", True),
        "attn.q_scale": ("BF16", True),
    },
    "MXFP4": {
        "experts.down_proj_blocks": ("U8", False),
        "experts.down_proj_scales": ("U8", False),
        "experts.down_proj_bias": ("BF16", False),
        "sinks": ("BF16", False),
    },
    "NVFP4 of modelopt": {
        "fc.weight": ("U8", False),
        "fc.weight_scale": ("F8_E4M3", False),
        "fc.weight_scale_2": ("F32", True),
        "fc.input_scale": ("F32", True),
    },
    "quanto": {
        "fc.weight._data": ("I8", False),
        "fc.weight._scale": ("BF16", True),
        "fc.weight._shift": ("BF16", True),
        "fc.input_scale": ("F32", True),
        "fc.output_scale": ("F32", True),
    },
    "torchao": {"fc._weight_qdata": ("I8", False), "fc._weight_scale": ("BF16", True)},
    "HQQ": {"fc.W_q": ("U8", False), "fc.scale": ("F16", True), "fc.zero": ("F16", True), "norm.scale": ("F16", False)},
    "EETQ": {"fc.weight": ("I8", False), "fc.weight_scales": ("F16", True)},
    "AQLM": {"fc.codes": ("I16", False), "fc.codebooks": ("F16", True), "fc.scales": ("F16", True)},
    "VPTQ": {"fc.indices": ("I32", False), "fc.centroids.weight": ("F16", True), "fc.weight_scale": ("F16", True)},
    "batch norm, positions and masks": {
        "bn.num_batches_tracked": ("I64", False),
        "bn.running_mean": ("F32", False),
        "bn.running_var": ("F32", False),
        "embeddings.position_ids": ("I64", False),
        "embeddings.class_embedding": ("F32", False),
        "vision.position_ids": ("I32", False),
        "vision.position_embedding": ("F32", False),
        "attn.causal_mask": ("U8", False),
        "attn.gate": ("F32", False),
        "attn.bias": ("BOOL", False),
        "attn.masked_bias": ("F32", False),
        "logit_scale": ("F32", False),
        "layer.input_scale": ("F32", False),
    },
}


def specs_of(layout: str) -> Specs:
    return {name: TensorSpec(dtype, (4, 8)) for name, (dtype, _) in LAYOUTS[layout].items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_companions_are_the_float_tensors_that_belong_to_quantized_weights(layout: str) -> None:
    expected = {name for name, (_, is_companion) in LAYOUTS[layout].items() if is_companion}
    specs = specs_of(layout)
    assert companions_of(specs, {}, dict.fromkeys(specs)) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prefix_of_all_names_does_not_matter(layout: str) -> None:
    specs = {f"model.layers.0.{name}": spec for name, spec in specs_of(layout).items()}
    plain = companions_of(specs_of(layout), {}, dict.fromkeys(specs_of(layout)))
    assert companions_of(specs, {}, dict.fromkeys(specs)) == {f"model.layers.0.{name}" for name in plain}


def test_a_weight_that_is_quantized_in_the_base_only_has_companions_too() -> None:
    fine = {"fc.weight": TensorSpec("BF16", (4, 8)), "fc.weight_scale": TensorSpec("F32", (4,))}
    base = fine | {"fc.weight": TensorSpec("F8_E4M3", (4, 8))}
    assert companions_of(fine, base, {name: name for name in fine}) == {"fc.weight_scale"}
    assert not companions_of(fine, fine, {name: name for name in fine})


def test_schemes_of_many_modules_are_found_in_linear_time() -> None:
    codes, scale = torch.zeros(1, 1, dtype=torch.int8), torch.zeros(1)
    tensors: dict[str, torch.Tensor] = {}
    for i in range(4000):
        tensors |= {f"layers.{i}.weight._data": codes, f"layers.{i}.weight._scale": scale}
    with open_checkpoint(tensors) as checkpoint:
        start = time.process_time()
        found = find_quantization(checkpoint)
    # Each module searched among all would take 20 times as long.
    assert time.process_time() - start < 2
    assert set(found.others.values()) == {"quanto"}
