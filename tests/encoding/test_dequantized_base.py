"""Fine-tunes in 16 bits of quantized bases: refused with one line, or encoded against the base read dequantized."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dtscodec
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.errors import BaseMismatchError, EncodeError
from tests.support import check_against_spec

State = dict[str, Tensor]
SIZE = dtscodec.Size.parse("1.5bpp")


def saved(folder: Path, state: State, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def row_fp8(name: str, weight: Tensor) -> State:
    """As vLLM stores it: FP8 with a scale for each row."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    return {name: codes, f"{name}_scale": scale, name.replace("weight", "input_scale"): torch.ones(1)}


def mxfp4(name: str, weight: Tensor) -> State:
    """A stack of experts as gpt-oss stores it."""
    experts, inputs, outputs = weight.shape
    return {
        f"{name}_blocks": torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8),
        f"{name}_scales": torch.randint(118, 123, (experts, outputs, inputs // 32), dtype=torch.uint8),
    }


def nf4(name: str, weight: Tensor) -> State:
    library = pytest.importorskip("bitsandbytes.functional")
    codes, quantized = library.quantize_4bit(weight.bfloat16(), quant_type="nf4", compress_statistics=True)
    return {name: codes} | {f"{name}.{part}": tensor for part, tensor in quantized.as_dict(packed=True).items()}


def gptq(name: str, weight: Tensor) -> State:
    module = name.removesuffix("weight")
    rows, columns = weight.shape
    return {
        f"{module}qweight": torch.randint(-(2**31), 2**31 - 1, (columns // 8, rows), dtype=torch.int32),
        f"{module}qzeros": torch.zeros(1, rows // 8, dtype=torch.int32),
        f"{module}scales": torch.rand(1, rows).half(),
        f"{module}g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def nvfp4_of_modelopt(name: str, weight: Tensor) -> State:
    rows, columns = weight.shape
    return {
        name: torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8),
        f"{name}_scale": torch.ones(rows, columns // 16).to(torch.float8_e4m3fn),
        f"{name}_scale_2": torch.ones(()),
    }


def quanto(name: str, weight: Tensor) -> State:
    return {f"{name}._data": (weight * 100).to(torch.int8), f"{name}._scale": torch.ones(len(weight), 1).bfloat16()}


READABLE = {
    "fp8": ("layers.{}.mlp.up.weight", (96, 64), row_fp8),
    "mxfp4": ("layers.{}.mlp.experts.down_proj", (2, 64, 48), mxfp4),
    "nf4": ("layers.{}.mlp.up.weight", (96, 64), nf4),
}
OTHERS = {"GPTQ": gptq, "NVFP4 of modelopt": nvfp4_of_modelopt, "quanto": quanto}


def models(scheme: str, folder: Path) -> tuple[Path, Path, Path]:
    """A quantized base, the same dequantized, and a fine-tune of it in bfloat16."""
    name, shape, quantize = READABLE[scheme]
    torch.manual_seed(0)
    plain = {"embed.weight": torch.randn(80, 64).bfloat16(), "layers.0.norm.weight": torch.ones(64).bfloat16()}
    stored = dict(plain)
    for layer in range(2):
        stored |= quantize(name.format(layer), torch.randn(shape) * 0.05)
    base = saved(folder / "base", stored, dtype="bfloat16", quantization_config={"quant_method": scheme})
    with dtscodec.Base(base, dequantize=True) as opened:
        whole = {n: tensor_from_bytes(opened.read(n), spec).clone() for n, spec in opened.specs.items()}
    fine = dict(whole)
    for layer in range(2):
        weight = whole[name.format(layer)].float()
        delta = torch.randn(*shape[:-1], 2) @ torch.randn(*shape[:-2], 2, shape[-1]) * 0.01
        fine[name.format(layer)] = (weight + delta).bfloat16()
    return base, saved(folder / "plain", whole, dtype="bfloat16"), saved(folder / "fine", fine, dtype="bfloat16")


@pytest.mark.parametrize("scheme", READABLE)
def test_a_quantized_base_under_a_plain_fine_tune_is_refused_with_a_remedy(scheme: str, tmp_path: Path) -> None:
    base, _, fine = models(scheme, tmp_path)
    with pytest.raises(EncodeError, match="the fine-tune's, which are BF16, got 2 weights") as caught:
        dtscodec.encode(base, fine, tmp_path / "p")
    assert "dequantize_base=True" in str(caught.value)
    # The remedy works.
    dtscodec.encode(base, fine, tmp_path / "p", dtscodec.EncodeConfig(dequantize_base=True))


@pytest.mark.parametrize("scheme", OTHERS)
def test_schemes_that_cannot_be_dequantized_are_refused_by_name(scheme: str, tmp_path: Path) -> None:
    weight = torch.randn(64, 64) * 0.05
    base = saved(tmp_path / "base", OTHERS[scheme]("fc.weight", weight) | {"norm.weight": torch.ones(64)})
    fine = saved(tmp_path / "fine", {"fc.weight": weight.bfloat16(), "norm.weight": torch.ones(64)})
    with pytest.raises(EncodeError, match=scheme) as caught:
        dtscodec.encode(base, fine, tmp_path / "p")
    assert "dequantize it with the library that quantized it" in str(caught.value)
    with pytest.raises(EncodeError, match=scheme):
        dtscodec.encode(base, fine, tmp_path / "p", dtscodec.EncodeConfig(dequantize_base=True))


@pytest.mark.parametrize("scheme", READABLE)
def test_a_plain_base_under_a_quantized_fine_tune_is_refused_with_a_remedy(scheme: str, tmp_path: Path) -> None:
    quantized, plain, _ = models(scheme, tmp_path)
    with pytest.raises(EncodeError, match="expected weights quantized like the fine-tune's") as caught:
        dtscodec.encode(plain, quantized, tmp_path / "p")
    assert "name a base that is quantized in the same way" in str(caught.value)
    with pytest.raises(EncodeError, match="leave out `dequantize_base`"):
        dtscodec.encode(quantized, quantized, tmp_path / "p", dtscodec.EncodeConfig(dequantize_base=True))
    dtscodec.encode(quantized, quantized, tmp_path / "p")


def test_a_fine_tune_that_was_only_cast_to_fp8_is_stored_exactly(tmp_path: Path) -> None:
    base = {f"layers.{i}.weight": torch.randn(32, 32).bfloat16() for i in range(3)}
    fine = {name: (tensor.float() * 1.01).to(torch.float8_e4m3fn) for name, tensor in base.items()}
    report = dtscodec.encode(base, fine, tmp_path / "pack")
    assert [note.kind for note in report.notes] == ["exact"]
    with dtscodec.decode(tmp_path / "pack", base) as state:
        assert all(torch.equal(state[name].view(torch.uint8), fine[name].view(torch.uint8)) for name in fine)
    # The other way round nothing of the base can be used.
    with pytest.raises(EncodeError, match="FP8 without scales"):
        dtscodec.encode(fine, base, tmp_path / "other")


def test_a_base_and_a_fine_tune_of_other_schemes_are_refused(tmp_path: Path) -> None:
    one, two = models("fp8", tmp_path / "a")[0], models("nf4", tmp_path / "b")[0]
    with pytest.raises(EncodeError, match="bitsandbytes nf4"):
        dtscodec.encode(one, two, tmp_path / "p")


def test_blocks_of_another_shape_are_of_the_same_scheme(tmp_path: Path) -> None:
    weight = torch.randn(64, 64)
    whole = {"fc.weight": weight.to(torch.float8_e4m3fn), "fc.weight_scale": torch.ones(1)}
    rows = row_fp8("fc.weight", weight)
    dtscodec.encode(whole, rows, tmp_path / "p")
    with dtscodec.decode(tmp_path / "p", whole) as decoded:
        assert torch.equal(decoded["fc.weight_scale"], rows["fc.weight_scale"])


def test_patterns_store_a_quantized_fine_tune_of_a_plain_base_exactly(tmp_path: Path) -> None:
    quantized, plain, _ = models("fp8", tmp_path)
    dtscodec.encode(plain, quantized, tmp_path / "p", dtscodec.EncodeConfig(raw=("layers.*",)))
    with dtscodec.decode(tmp_path / "p", plain) as decoded:
        for name, tensor in load_file(quantized / "model.safetensors").items():
            assert torch.equal(decoded[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


@pytest.mark.parametrize("scheme", READABLE)
def test_readers_dequantize_the_base_as_the_pack_records(scheme: str, tmp_path: Path) -> None:
    base, plain, fine = models(scheme, tmp_path)
    path = tmp_path / "p"
    report = dtscodec.encode(base, fine, path, dtscodec.EncodeConfig(SIZE, dequantize_base=True))
    (note,) = [note for note in report.notes if note.kind == "dequantized-base"]
    assert len(note.names) == 2
    info = dtscodec.info(path)
    assert info.base is not None
    assert info.base.dequantized == "BF16"
    # The same as a pack against the plain checkpoint, but for what the summary says of the base.
    other = dtscodec.encode(plain, fine, tmp_path / "q", dtscodec.EncodeConfig(SIZE))
    assert other.relative_error == report.relative_error
    check_against_spec(path, plain)  # The spec's decoder takes what the base is read as.
    with dtscodec.Base(base) as stored, dtscodec.Base(base, dequantize=True) as dequantized:
        for source in (base, plain, stored, dequantized):
            dtscodec.verify(path, source)
            with dtscodec.decode(path, source) as decoded, dtscodec.decode(tmp_path / "q", plain) as expected:
                assert decoded.keys() == expected.keys()
                assert all(torch.equal(decoded[name], expected[name]) for name in expected)
            total = dtscodec.compare(path, fine, source).total
            assert total.relative_error == pytest.approx(report.relative_error, abs=0.05)
    with dtscodec.open(path) as pack:
        assert pack.tensor("embed.weight", base).shape == (80, 64)


def test_another_dtype_than_that_of_the_configuration_is_recorded_in_the_pack(tmp_path: Path) -> None:
    base, _, fine = models("fp8", tmp_path)
    with dtscodec.Base(base, dequantize="F32") as dequantized:
        dtscodec.encode(dequantized, fine, tmp_path / "p")
    with dtscodec.open(tmp_path / "p") as pack:
        assert pack.summary.dequantized_base == "F32"
        dtscodec.verify(pack, base)


def test_another_quantized_base_is_refused(tmp_path: Path) -> None:
    base, _, fine = models("fp8", tmp_path)
    dtscodec.encode(base, fine, tmp_path / "p", dtscodec.EncodeConfig(SIZE, dequantize_base=True))
    state = load_file(base / "model.safetensors")
    name = "layers.0.mlp.up.weight_scale"
    other = saved(tmp_path / "other", state | {name: state[name] * 2})
    with pytest.raises(BaseMismatchError):
        dtscodec.verify(tmp_path / "p", other)
    with pytest.raises(BaseMismatchError, match="expected BF16, got F8_E4M3"):
        dtscodec.verify(tmp_path / "p", saved(tmp_path / "without", {n: t for n, t in state.items() if n != name}))


def test_workers_and_journals_read_the_base_dequantized(tmp_path: Path) -> None:
    base, _, fine = models("fp8", tmp_path)
    config = dtscodec.EncodeConfig(SIZE, dequantize_base=True)
    expected = dtscodec.encode(base, fine, tmp_path / "p", config).pack_id
    with ProcessPoolExecutor(1, get_context("spawn")) as executor, dtscodec.Journal(tmp_path / "part") as journal:
        report = dtscodec.encode(base, fine, tmp_path / "q", config, executor=executor, journal=journal)
    assert report.pack_id == expected


def test_apply_and_switcher_take_the_quantized_base_and_the_dequantized_model(tmp_path: Path) -> None:
    base, plain, fine = models("fp8", tmp_path)
    dtscodec.encode(base, fine, tmp_path / "p", dtscodec.EncodeConfig(SIZE, dequantize_base=True))

    class Up(torch.nn.Module):
        def __init__(self, state: State) -> None:
            super().__init__()
            for name, tensor in state.items():
                module: torch.nn.Module = self
                *path, last = name.split(".")
                for part in path:
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.register_parameter(last, torch.nn.Parameter(tensor.clone(), requires_grad=False))

    with dtscodec.decode(tmp_path / "p", base) as decoded:
        for source in (None, base, plain):
            model = Up(load_file(plain / "model.safetensors"))
            dtscodec.apply_(model, tmp_path / "p", source)
            assert all(torch.equal(tensor, decoded[name]) for name, tensor in model.state_dict().items())
        model = Up(load_file(plain / "model.safetensors"))
        switcher = dtscodec.Switcher(model, base)
        switcher.add("task", tmp_path / "p")
        switcher.activate("task")
        assert all(torch.equal(tensor, decoded[name]) for name, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Of PEFT's use of transformers.
def test_an_adapter_of_a_quantized_base_is_imported_onto_the_base_read_dequantized(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=True,
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
    )
    model = transformers.Qwen2ForCausalLM(config).to(torch.bfloat16)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    for name in [name for name in state if name.endswith("proj.weight")]:
        state |= nf4(name, state.pop(name))
    section = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    base = saved(tmp_path / "base", state, **config.to_dict(), quantization_config=section)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(EncodeError, match="expected plain weights, got 7 weights of bitsandbytes nf4") as caught:
        dtscodec.import_adapter(tmp_path / "adapter", base, tmp_path / "p")
    assert "dequantize_base=True" in str(caught.value)
    report = dtscodec.import_adapter(tmp_path / "adapter", base, tmp_path / "p", dequantize_base=True)
    assert [note.kind for note in report.notes] == ["dequantized-base"]
    # The decoded model is plain, and its configuration says nothing of quantization.
    with dtscodec.decode(tmp_path / "p", base) as decoded, dtscodec.Base(base, dequantize=True) as opened:
        assert "quantization_config" not in json.loads(decoded.files()["config.json"])
        name = "model.layers.0.self_attn.q_proj.weight"
        layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
        start = tensor_from_bytes(opened.read(name), opened.specs[name])
        expected = start.float() + layer.get_delta_weight("default").float()
        assert torch.allclose(decoded[name].float(), expected, atol=0.01)
    assert dtscodec.from_pretrained(base, tmp_path / "p").config.to_dict().get("quantization_config") is None
