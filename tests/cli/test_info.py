import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.helpers import CODED, PACK, Cli, base_tensors, fine_tensors


def rows_of(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()]


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture
def facts(cli: Cli) -> dict[str, Any]:
    result = cli.json("info", PACK, "--tensors")
    assert isinstance(result, dict)
    return result


def test_kinds_files_and_overhead_add_up_to_the_file(facts: dict[str, Any]) -> None:
    size = os.stat(PACK).st_size
    kinds = sum(kind["size"] for kind in facts["kinds"].values())
    files = sum(file.get("stored", 0) for file in facts["files"])
    assert kinds + files + facts["bitmaps"] + facts["overhead"] == size == facts["size"]


def test_arenas_add_up_to_the_file(facts: dict[str, Any]) -> None:
    assert sum(facts["arenas"].values()) == facts["size"]
    data = sum(facts["arenas"].get(name, 0) for name in ("rows", "numbers", "codes", "raw"))
    rest = facts["size"] - data
    assert 0 <= facts["overhead"] - rest < 2 * 32  # padding before codes and raw


def test_kinds_add_up_to_the_fine_tune(facts: dict[str, Any]) -> None:
    fine = fine_tensors(11)
    assert sum(kind["tensors"] for kind in facts["kinds"].values()) == len(fine)
    assert sum(kind["parameters"] for kind in facts["kinds"].values()) == sum(t.numel() for t in fine.values())
    assert facts["parameters"] == sum(t.numel() for t in fine.values())
    assert facts["fine_tune_size"] == sum(t.nbytes for t in fine.values())


def test_every_tensor_is_listed(facts: dict[str, Any]) -> None:
    fine = fine_tensors(11)
    assert [tensor["name"] for tensor in facts["tensors"]] == sorted(fine)
    assert [tensor["shape"] for tensor in facts["tensors"]] == [list(fine[name].shape) for name in sorted(fine)]
    for kind, total in facts["kinds"].items():
        sizes = [tensor["size"] for tensor in facts["tensors"] if tensor["kind"] == kind]
        assert (len(sizes), sum(sizes)) == (total["tensors"], total["size"])


def test_sizes_of_tensors_are_those_of_their_streams(facts: dict[str, Any]) -> None:
    sizes = {tensor["name"]: tensor["size"] for tensor in facts["tensors"]}
    assert sizes["frozen.weight"] == 0
    assert sizes["classifier.weight"] == 2 * 32 * 4
    assert sizes["encoder.weight"] == 3 * (16 + 16) + 2 * (1 + 4 + 4 + 3)  # codes of 3 components; norm, levels, scales
    assert sizes["encoder.bias"] == 16 + 2 * 4


def test_text_agrees_with_json(cli: Cli, facts: dict[str, Any]) -> None:
    rows = {row[0]: row[1:] for row in rows_of(cli("info", PACK)) if len(row) == 5}
    assert rows.pop("kind") == ["count", "parameters", "bytes", "share"]
    for kind, total in facts["kinds"].items():
        assert [number(cell) for cell in rows.pop(kind)[:3]] == [total["tensors"], total["parameters"], total["size"]]
    parts = sum(kind["size"] for kind in facts["kinds"].values())
    shared = [number(rows[name][2]) for name in ("files", "bitmaps", "overhead")]
    assert sum(shared) + parts == number(rows["all"][2]) == facts["size"]
    assert shared[1:] == [facts["bitmaps"], facts["overhead"]]
    assert rows["all"][3] == "100.00 %"


def test_text_lists_every_tensor(cli: Cli, facts: dict[str, Any]) -> None:
    rows = {row[0]: row[1:] for row in rows_of(cli("info", PACK, "--tensors")) if len(row) == 8}
    assert rows.pop("tensor") == ["kind", "dtype", "shape", "rank", "width", "bytes", "bits/param"]
    assert {name: (row[0], row[1], number(row[5])) for name, row in rows.items()} == {
        tensor["name"]: (tensor["kind"], tensor["dtype"], tensor["size"]) for tensor in facts["tensors"]
    }


def test_without_tensors_only_their_number_is_reported(cli: Cli, facts: dict[str, Any]) -> None:
    brief = cli.json("info", PACK)
    assert brief == facts | {"tensors": len(facts["tensors"])}


def test_tensors_of_the_base_that_are_absent_are_listed(cli: Cli, facts: dict[str, Any]) -> None:
    assert facts["absent"] == ["pooler.weight"]
    assert "only in the base, so not decoded: pooler.weight\n" in cli("info", PACK)


def test_files_are_listed(cli: Cli) -> None:
    text = cli("info", PACK)
    size = os.stat("movie/config.json").st_size
    assert re.search(rf"^file        config\.json: stored, \d+ of {size} bytes$", text, re.MULTILINE)
    assert "file        vocab.txt: not stored, as it lies beside the base\n" in text


def test_prefix_and_metadata_are_reported(cli: Cli) -> None:
    save_file({f"bert.{name}": tensor for name, tensor in fine_tensors(11).items()}, "a.safetensors", {"format": "pt"})
    cli("encode", "base", "a.safetensors")
    facts = cli.json("info", "a.dts.safetensors")
    assert (facts["prefix"], facts["metadata"]) == (["bert.", ""], {"format": "pt"})
    assert facts["base"] is not None


def test_a_pack_that_needs_no_base_says_so(cli: Cli) -> None:
    save_file({name: tensor for name, tensor in base_tensors().items() if name == "steps"}, "tiny.safetensors")
    save_file({"steps": base_tensors()["steps"] + 1}, "tiny-fine.safetensors")
    cli("encode", "tiny.safetensors", "tiny-fine.safetensors", "-o", "a")
    assert cli.json("info", "a")["base"] is None
    assert re.search(r"^base +none needed$", cli("info", "a"), re.MULTILINE)
    cli("decode", "a", "-o", "a.safetensors")


def test_names_cannot_break_lines_or_command_a_terminal(cli: Cli) -> None:
    name = "encoder\n\x1b[2J\x7f\u202eweight"
    fine = fine_tensors(11)
    save_file(fine | {name: fine["classifier.weight"] + 1}, "a.safetensors")
    cli("encode", "base", "task\u00e9=a.safetensors", "-o", "a")
    text = cli("info", "a", "--tensors")
    assert "encoder\\n\\x1b[2J\\x7f\\u202eweight " in text
    assert all(c.isprintable() or c == "\n" for c in text)
    assert name in [tensor["name"] for tensor in cli.json("info", "a", "--tensors")["tensors"]]
    assert cli.json("info", "a")["task"] == "task\u00e9"


def test_tensors_of_several_kinds_are_counted_as_mixed(cli: Cli) -> None:
    fine = fine_tensors(11)
    fine["embeddings.weight"] = torch.cat([fine["embeddings.weight"], torch.randn(5, 16)])
    save_file(fine, "grown.safetensors")
    cli("encode", "base", "grown.safetensors", *CODED)
    facts = cli.json("info", "grown.dts.safetensors", "--tensors")
    kinds = {tensor["name"]: tensor["kind"] for tensor in facts["tensors"]}
    assert kinds["embeddings.weight"] == "raw+lowrank"
    assert facts["kinds"]["mixed"]["tensors"] == 1
    sizes = sum(kind["size"] for kind in facts["kinds"].values())
    assert sizes + facts["bitmaps"] + facts["overhead"] == facts["size"] == Path("grown.dts.safetensors").stat().st_size
    assert cli("info", "grown.dts.safetensors", "--tensors")
    assert cli("compare", "grown.dts.safetensors", "grown.safetensors", "--base", "base")


def test_info_imports_no_torch(work: Path) -> None:
    script = (
        "import sys; from dtscodec.cli.main import main; code = main(sys.argv[1:]);"
        "print(*{'torch', 'transformers', 'huggingface_hub'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, "info", PACK, "--tensors"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "\n")


@pytest.mark.parametrize("arguments", [["--help"], ["info", PACK], ["info", PACK, "--tensors", "--json"]])
def test_info_and_help_are_quick(work: Path, arguments: list[str]) -> None:
    times = []
    for _ in range(4):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "dtscodec", *arguments], check=True, capture_output=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    processor, wall = min(times)
    print(f"{' '.join(arguments)}: {wall:.3f} s, {processor:.3f} s of them computing; 0.4 s are asked for")
    assert processor < 2  # torch alone takes as long; other processes may make this one wait


def test_what_is_coded_without_a_base_is_named(cli: Cli) -> None:
    base = {"weight": torch.randn(64, 96)}
    save_file(base, "b.safetensors")
    save_file({"weight": base["weight"] + 0.01 * torch.randn(64, 96), "head": torch.randn(40, 96)}, "f.safetensors")
    cli("encode", "b.safetensors", "f.safetensors", "-o", "tight", "--size", "6kB")
    cli("encode", "b.safetensors", "f.safetensors", "-o", "exact", "--size", "20kB", "--raw", "head")
    assert cli.json("info", "tight")["without_base"] == ["head"]
    assert "head: not in the base; coded, not exact" in cli("info", "tight")
    assert cli.json("info", "exact")["without_base"] == []


def test_names_of_weight_files_are_shown_if_they_are_not_the_default_ones(cli: Cli, tmp_path: Path) -> None:
    for name in ("base-unet", "unet"):
        Path(name).mkdir()
        save_file({"w": torch.zeros(4)}, f"{name}/diffusion_pytorch_model.fp16.safetensors")
    cli("encode", "base-unet", "unet", "-o", "unet.pack")
    assert "stem        diffusion_pytorch_model.fp16\n" in cli("info", "unet.pack")
    found = cli.json("info", "unet.pack")
    assert (found["stem"], found["folders"]) == ("diffusion_pytorch_model.fp16", [])
