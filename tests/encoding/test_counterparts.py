"""Fine-tunes whose names or layout differ from the base's, and the notes on tensors without a counterpart."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

import dtscodec
from dtscodec.cli.remedies import spell_option
from tests.support import make_pack

Tensors = dict[str, torch.Tensor]


def split_experts(width: int, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    inner = width + 8
    tensors: Tensors = {"model.embed_tokens.weight": torch.randn(50, width, generator=generator)}
    for e in range(3):
        expert = f"model.layers.0.mlp.experts.{e}."
        tensors |= {f"{expert}{x}_proj.weight": torch.randn(inner, width, generator=generator) for x in ("gate", "up")}
        tensors |= {f"{expert}down_proj.weight": torch.randn(width, inner, generator=generator)}
    return tensors


def fuse(tensors: Tensors) -> Tensors:
    layer = "model.layers.0.mlp.experts."
    gate, up, down = (
        torch.stack([tensors[f"{layer}{e}.{x}_proj.weight"] for e in range(3)]) for x in ("gate", "up", "down")
    )
    body = {name: tensor for name, tensor in tensors.items() if "experts" not in name}
    return body | {f"{layer}gate_up_proj": torch.cat([gate, up], 1), f"{layer}down_proj": down}


def changed(tensors: Tensors, scale: float = 1e-2) -> Tensors:
    generator = torch.Generator().manual_seed(7)
    return {name: tensor + scale * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}


@pytest.mark.parametrize("width", [8, 40])
@pytest.mark.parametrize("preset", [dtscodec.Best(), dtscodec.Paper()])
@pytest.mark.parametrize("fine_is_fused", [True, False])
def test_fused_experts_are_encoded_against_split_ones_and_split_ones_against_fused(
    tmp_path: Path, width: int, preset: dtscodec.Best | dtscodec.Paper, fine_is_fused: bool
) -> None:
    before, after = split_experts(width), changed(split_experts(width))
    base, fine = (before, fuse(after)) if fine_is_fused else (fuse(before), after)
    target = dtscodec.Size.parse("60%") if isinstance(preset, dtscodec.Best) else dtscodec.Rank(16)
    report = make_pack(base, fine, tmp_path / "pack", preset=preset, target=target)
    # Against a wrong expert or half, the delta would be as large as the weights.
    with dtscodec.decode(report.path, base) as decoded:
        for name, tensor in fine.items():
            assert float((decoded[name] - tensor).norm() / tensor.norm()) < 0.011


@pytest.mark.parametrize("fine_is_fused", [True, False])
def test_unchanged_experts_of_another_layout_take_no_codes(tmp_path: Path, fine_is_fused: bool) -> None:
    base, fine = split_experts(40), fuse(split_experts(40))
    if not fine_is_fused:
        base, fine = fine, base
    report = make_pack(base, fine, tmp_path / "pack")
    with dtscodec.open(report.path) as pack:
        assert {block.kind for entry in pack.index.tensors for block in entry.blocks} == {"same"}
    other, unchanged = report.notes
    assert (other.kind, len(other.names)) == ("other-names", 2 if fine_is_fused else 9)
    assert (unchanged.kind, unchanged.text) == ("unchanged", "no tensor differs from the base")


def test_experts_of_a_transposed_layout_are_named_with_a_remedy(tmp_path: Path) -> None:
    base = split_experts(40) | {"model.big.weight": torch.randn(400, 400)}
    fine = {name: (t.mT.contiguous() if t.ndim == 3 else t) for name, t in fuse(changed(base)).items()}
    (note,) = make_pack(base, fine, tmp_path / "pack").notes
    assert note.kind == "without-counterpart"
    assert set(note.names) == {name for name in fine if "experts" in name}
    assert "save_pretrained" in str(note)


def test_tensors_without_a_counterpart_are_counted_and_the_rename_that_works_is_named(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    base = {f"audio.layers.{i}.w": torch.randn(40, 40, generator=generator) for i in range(9)}
    base |= {f"text.blocks.{i}.w": torch.randn(30, 40, generator=generator) for i in range(9)}
    fine = {name.replace("text.blocks", "words.stack"): tensor for name, tensor in changed(base).items()}
    report = make_pack(base, fine, tmp_path / "a")
    new, absent = report.notes
    assert (new.kind, new.parameters, absent.kind) == ("without-counterpart", 9 * 1200, "absent")
    assert new.share == pytest.approx(1200 / 2800)
    assert new.text.startswith("9 tensors (42.9 % of the parameters) have no counterpart in the base")
    assert "words.stack.0.w, words.stack.1.w, words.stack.2.w and 6 more" in new.text
    assert new.spelled(spell_option).endswith("match them with --map words.stack.=text.blocks.")
    renames = [("words.stack.", "text.blocks.")]
    assert f"renames={renames}" in str(new)
    assert make_pack(base, fine, tmp_path / "b", renames=renames).notes == ()


def test_names_that_several_prefixes_match_are_reported_with_equivalent_renames(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    parts = {"text": (40, 40), "vision": (36, 40)}
    base = {f"{x}.layers.{i}.w": torch.randn(s, generator=generator) for x, s in parts.items() for i in range(9)}
    new = {"text": "model.text.decoder", "vision": "model.vision"}
    fine = {name.replace(x, new[x], 1): t for name, t in changed(base).items() if (x := name.split(".")[0])}
    (note,) = make_pack(base, fine, tmp_path / "pack").notes
    assert (note.kind, len(note.names)) == ("other-names", 9)
    assert note.spelled(spell_option).endswith("the same as --map model.text.decoder.=text. --map model.=")
    renames = [("model.text.decoder.", "text."), ("model.", "")]
    assert f"renames={renames}" in str(note)
    assert make_pack(base, fine, tmp_path / "again", renames=renames).notes == ()


def test_a_head_that_is_tied_to_the_embeddings_is_not_called_new(tmp_path: Path) -> None:
    base = split_experts(40)
    fine = changed(base)
    fine["lm_head.weight"] = fine["model.embed_tokens.weight"].clone()
    assert make_pack(base, fine, tmp_path / "pack").notes == ()


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.zembed = torch.nn.Embedding(60, 40)
        self.head = torch.nn.Linear(40, 60, bias=False)
        self.head.weight = self.zembed.weight


def test_the_name_that_save_model_removed_finds_the_counterpart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied()
    (tmp_path / "base").mkdir()
    (tmp_path / "fine").mkdir()
    save_file({"zembed.weight": model.zembed.weight.detach().clone()}, tmp_path / "base/model.safetensors")
    with torch.no_grad():
        model.zembed.weight.add_(1e-3 * torch.randn(60, 40))
    save_model(model, str(tmp_path / "fine/model.safetensors"))
    assert list(load_file(tmp_path / "fine/model.safetensors")) == ["head.weight"]
    report = make_pack(tmp_path / "base", tmp_path / "fine", tmp_path / "pack")
    assert [note.kind for note in report.notes] == ["other-names"]
    with dtscodec.open(report.path) as pack:
        assert pack.index.base_names() == ["zembed.weight"]
        assert json.loads(json.dumps(dict(pack.index.metadata))) == {"zembed.weight": "head.weight"}


def test_a_layer_that_is_quantized_in_the_base_only_is_reported_as_stored_without_it(tmp_path: Path) -> None:
    base = quantized_rows(split_experts(16), "experts")
    fine = quantized_rows(changed(split_experts(16)), "experts.0", "experts.1")
    note, *_ = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Size.parse("90%")).notes
    assert note.kind == "without-counterpart"
    assert {name.split(".experts.")[1] for name in note.names} == {f"2.{x}_proj.weight" for x in ("gate", "up", "down")}
    assert (note.parameters, f"{note.share:.3f}") == (3 * 16 * 24, "0.263")
    assert "3 tensors (26.3 % of the parameters) are F8_E4M3 in the base and are stored exactly: " in note.text


def quantized_rows(tensors: Tensors, *modules: str) -> Tensors:
    """FP8 with a scale for each row, for the weights of some modules; bfloat16 for the others."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        if any(f".{module}." in name for module in modules):
            scale = tensor.abs().amax(1, keepdim=True) / 448
            result |= {name: (tensor / scale).to(torch.float8_e4m3fn), f"{name}_scale": scale}
        else:
            result[name] = tensor.bfloat16()
    return result


def test_a_name_that_is_equal_beside_others_with_a_prefix_is_not_of_another_name(tmp_path: Path) -> None:
    base = {f"model.{name}": tensor for name, tensor in split_experts(16).items()} | {
        "lm_head.weight": torch.ones(50, 16)
    }
    fine = changed(split_experts(16) | {"lm_head.weight": torch.ones(50, 16)})
    report = make_pack(base, fine, tmp_path / "pack", target=dtscodec.Size.parse("60%"))
    assert not [note for note in report.notes if note.kind == "other-names"]
