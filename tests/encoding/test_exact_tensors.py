"""Quantized weights and their companions are stored exactly at any size, and the report says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dtscodec
from dtscodec.cli.result_lines import pack_line
from dtscodec.errors import EncodeError
from tests.support import make_pack

State = dict[str, Tensor]


def channel_fp8(weight: Tensor) -> State:
    """A linear layer as vLLM stores it: FP8 with a scale for each row, and a static scale of its inputs."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 448
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale, "input_scale": scale.max()}


def gptq(weight: Tensor) -> State:
    groups = torch.arange(weight.shape[1], dtype=torch.int32) // 32
    packed = (weight.abs() * 1e6).to(torch.int32)
    return {
        "qweight": packed[: weight.shape[0] // 8],
        "qzeros": packed[:1],
        "g_idx": groups,
        "scales": weight[:4].to(torch.float16),
    }


def quanto(weight: Tensor) -> State:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return {"weight._data": (weight / scale).to(torch.int8), "weight._scale": scale.bfloat16()}


SCHEMES = {"fp8": channel_fp8, "GPTQ": gptq, "quanto": quanto}


def model(quantize: Any, seed: int, rows: int, columns: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {"embed.weight": torch.randn(60, columns, generator=generator), "norm.weight": torch.ones(columns)}
    for layer in range(2):
        weight = torch.randn(rows, columns, generator=generator) * 0.1
        state |= {f"layers.{layer}.up.{part}": tensor for part, tensor in quantize(weight).items()}
        state[f"layers.{layer}.up.bias"] = torch.randn(rows, generator=generator)
    return state


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 9).map(lambda n: 8 * n),
    columns=st.sampled_from([32, 96]),
    share=st.sampled_from([0.0, 0.3, 2.0, None]),
    preset=st.sampled_from([dtscodec.Best(), dtscodec.Paper()]),
)
@settings(max_examples=8, deadline=None)
def test_companions_of_quantized_weights_are_exact_at_any_size(
    scheme: str, seed: int, rows: int, columns: int, share: float | None, preset: Any, tmp_path_factory: Any
) -> None:
    base, fine = (model(SCHEMES[scheme], each, rows, columns) for each in (seed, seed + 100))
    fine["norm.weight"] = base["norm.weight"] + 0.1 * torch.randn(columns)
    size = sum(tensor.nbytes for tensor in fine.values())
    target = (
        None
        if share is None or isinstance(preset, dtscodec.Paper)
        else dtscodec.Size.parse(f"{1 + int(share * size)}B")
    )
    out = tmp_path_factory.mktemp("exact") / "p"
    try:
        report = dtscodec.encode(base, fine, out, dtscodec.EncodeConfig(target, preset))
    except EncodeError as error:
        # The one clear error names a size that works.
        smallest = int(str(error).split("at least ")[1].split(" bytes")[0].replace(",", ""))
        target = dtscodec.Size.parse(f"{smallest}B")
        report = dtscodec.encode(base, fine, out, dtscodec.EncodeConfig(target, preset))
    (note,) = [note for note in report.notes if note.kind == "exact"]
    with dtscodec.decode(out, base) as decoded:
        for name, tensor in fine.items():
            if ".up." in name and not name.endswith("bias"):
                assert decoded[name].dtype == tensor.dtype
                assert torch.equal(decoded[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name
                assert name in note.names or torch.equal(tensor, base[name])


def test_companions_that_equal_the_base_stay_the_same(tmp_path: Path) -> None:
    base = model(channel_fp8, 0, 64, 32)
    fine = base | {"norm.weight": base["norm.weight"] + 0.1}
    report = make_pack(base, fine, tmp_path / "p")
    assert not [note for note in report.notes if note.kind == "exact"]
    assert report.exact_bytes == 0


def test_a_scale_is_not_tied_to_a_coded_tensor_of_the_same_content(tmp_path: Path) -> None:
    base, fine = model(channel_fp8, 0, 64, 64), model(channel_fp8, 1, 64, 64)
    scale = fine["layers.1.up.weight_scale"]
    fine["layers.0.up.bias"] = fine["norm.weight"] = scale.view(-1)
    fine["a.gate"] = scale.clone()
    make_pack(base, fine, tmp_path / "p", target=dtscodec.Size.parse("12kB"))
    with dtscodec.decode(tmp_path / "p", base) as decoded:
        assert torch.equal(decoded["layers.1.up.weight_scale"], scale)


def test_the_note_counts_exact_tensors_by_reason(tmp_path: Path) -> None:
    base, fine = model(channel_fp8, 0, 64, 32), model(channel_fp8, 1, 64, 32)
    report = make_pack(base, fine, tmp_path / "p", raw=("norm.*", "embed.*"))
    (note,) = [note for note in report.notes if note.kind == "exact"]
    assert "scales and other companions of quantized weights (4)" in note.text
    assert "dtype F8_E4M3 (2)" in note.text
    assert "named by a pattern (1)" in note.text  # The norm equals the base's.
    assert note.parameters == sum(fine[name].numel() for name in note.names)
    assert note.share == pytest.approx(note.parameters / sum(tensor.numel() for tensor in fine.values()))
    assert note.text.endswith("and 4 more")


def test_the_line_names_exact_bytes_and_that_the_error_is_of_the_other_tensors(tmp_path: Path) -> None:
    base, fine = model(channel_fp8, 0, 64, 32), model(channel_fp8, 1, 64, 32)
    fine["embed.weight"] = base["embed.weight"] + torch.randn(60, 32) * 1e-3
    report = make_pack(base, fine, tmp_path / "p", target=dtscodec.Size.parse("8kB"))
    assert 0 < report.exact_bytes < report.pack_bytes
    line = pack_line("task", report)
    assert " kB of it exact, relative error of the rest " in line
    assert " % of its delta left out" in line or not report.left_out
    plain = make_pack({"w": torch.zeros(64, 64)}, {"w": torch.randn(64, 64)}, tmp_path / "q")
    assert "of it exact" not in pack_line("task", plain)
