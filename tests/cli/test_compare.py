import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.helpers import CODED, PACK, Cli, fine_tensors, load

FIGURES = ("relative_error", "cosine", "norm_ratio")


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tensor["name"]: tensor for tensor in document["tensors"]}


def figures(true: torch.Tensor, decoded: torch.Tensor) -> dict[str, float]:
    """The definitions, in float64."""
    norm = float(true.norm())
    return {
        "relative_error": float((true - decoded).norm()) / norm,
        "cosine": float((true * decoded).sum()) / (norm * float(decoded.norm())),
        "norm_ratio": float(decoded.norm()) / norm,
    }


def deltas(cli: Cli, pack: str, fine: str, base: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The true delta and the decoded one of each floating-point tensor that the base has, flat, in float64.

    The base is rounded to the fine-tune's dtype, as are the weights.
    """
    cli("decode", pack, "--base", base, "-o", "compared.safetensors", "--force")
    ours, theirs, start = load("compared.safetensors"), load(fine), load(base)
    rounded = {name: tensor.to(theirs[name].dtype).double() for name, tensor in start.items() if name in theirs}
    return {
        name: (
            (theirs[name].double() - rounded[name]).flatten(),
            (ours[name].double() - rounded[name]).flatten(),
        )
        for name in theirs
        if name in start and theirs[name].is_floating_point()
    }


def test_figures_equal_their_definitions_per_tensor_and_in_all(cli: Cli) -> None:
    document = cli.json("compare", PACK, "movie", "--base", "base")
    expected = deltas(cli, PACK, "movie/model.safetensors", "base/model.safetensors")
    coded = {name: tensor for name, tensor in by_name(document).items() if tensor["kind"] in ("values", "lowrank")}
    assert sorted(coded) == ["decoder.weight", "embeddings.weight", "encoder.bias", "encoder.weight", "half.weight"]
    for name, tensor in coded.items():
        for figure, value in figures(*expected[name]).items():
            assert tensor[figure] == pytest.approx(value, rel=1e-5), (name, figure)
    whole = figures(*(torch.cat([expected[name][side] for name in coded]) for side in (0, 1)))
    for figure, value in whole.items():
        assert document[figure] == pytest.approx(value, rel=1e-5), figure


def test_sizes_are_those_of_info(cli: Cli) -> None:
    document = cli.json("compare", PACK, "movie", "--base", "base")
    info = cli.json("info", PACK, "--tensors")
    for tensor in info["tensors"]:
        compared = by_name(document)[tensor["name"]]
        assert (compared["bytes"], compared["kind"]) == (tensor["size"], tensor["kind"])
        assert compared["bits_per_parameter"] == 8 * tensor["size"] / math.prod(tensor["shape"])
    assert document["bytes"] == info["size"] == Path(PACK).stat().st_size
    assert document["fine_tune_bytes"] == info["fine_tune_size"]
    assert document["bits_per_parameter"] == 8 * info["size"] / info["parameters"]


def test_what_is_stored_exactly_is_exact(cli: Cli) -> None:
    cli("encode", "base", "movie", "-o", "a", "--raw", "*")
    document = cli.json("compare", "a", "movie", "--base", "base")
    assert all(tensor["exact"] for tensor in document["tensors"])
    assert [document[figure] for figure in FIGURES] == [None] * 3
    text = cli("compare", "a", "movie", "--base", "base")
    assert sum(line.count(" exact") == 3 for line in text.splitlines()) == 8
    assert text.splitlines()[-1].split()[:4] == ["all", "-", "-", "-"]


def test_a_tensor_that_should_be_exact_but_is_not_is_reported(cli: Cli) -> None:
    fine = fine_tensors(11)
    fine["frozen.weight"] += 1
    save_file(fine, "other.safetensors")
    command = ["compare", PACK, "other.safetensors", "--base", "base"]
    frozen = by_name(cli.json(*command))["frozen.weight"]
    assert (frozen["kind"], frozen["exact"]) == ("same", False)
    (row,) = (line.split() for line in cli(*command).splitlines() if line.startswith("frozen.weight"))
    assert row[2:5] == ["1.000", "-", "0.000"]  # The pack has none of the delta.


def test_text_shows_the_figures_of_json(cli: Cli) -> None:
    document = cli.json("compare", PACK, "movie", "--base", "base")
    lines = [line.split() for line in cli("compare", PACK, "movie", "--base", "base").splitlines()]
    assert lines[0] == ["tensor", "kind", "error", "cosine", "norm", "ratio", "bits/param", "bytes"]
    for name, kind, *cells in lines[1:-1]:
        tensor = by_name(document)[name]
        shown = ["exact"] * 3 if tensor["exact"] else [f"{tensor[figure]:.3f}" for figure in FIGURES]
        assert [kind, *cells] == [tensor["kind"], *shown, f"{tensor['bits_per_parameter']:.3f}", f"{tensor['bytes']:,}"]
    total = [f"{document[figure]:.3f}" for figure in FIGURES]
    assert lines[-1] == ["all", *total, f"{document['bits_per_parameter']:.3f}", f"{document['bytes']:,}"]


@pytest.mark.parametrize(
    "dtypes", [(torch.float64, torch.float64), (torch.bfloat16, torch.float32), (torch.float32, torch.float64)]
)
def test_deltas_are_taken_at_the_tensors_precision(cli: Cli, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    generator = torch.Generator().manual_seed(2)
    base = {"weight": 1000 + torch.randn(40, 30, generator=generator).double()}
    step = 1e-5 if dtypes[0] == torch.float64 else 100
    fine = {"weight": base["weight"] + step * torch.randn(40, 30, generator=generator).double()}
    save_file({name: tensor.to(dtypes[1]) for name, tensor in base.items()}, "b.safetensors")
    save_file({name: tensor.to(dtypes[0]) for name, tensor in fine.items()}, "f.safetensors")
    cli("encode", "b.safetensors", "f.safetensors", "-o", "a", *CODED)
    document = cli.json("compare", "a", "f.safetensors", "--base", "b.safetensors")
    expected = figures(*deltas(cli, "a", "f.safetensors", "b.safetensors")["weight"])
    for figure, value in expected.items():
        assert document[figure] == pytest.approx(value, rel=1e-4), figure


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "missing"])
def test_a_fine_tune_with_other_tensors_is_refused(cli: Cli, change: str) -> None:
    fine = fine_tensors(11)
    weight = fine.pop("encoder.weight")
    if change == "name":
        fine["encoder.wait"] = weight
    elif change != "missing":
        fine["encoder.weight"] = weight[:40].clone() if change == "shape" else weight.half()
    save_file(fine, "other.safetensors")
    line = cli.fails("compare", PACK, "other.safetensors", "--base", "base")
    assert line.startswith("other.safetensors: encoder.w")
    assert ", got " in line


def test_without_a_base_the_error_says_how_to_name_it(cli: Cli) -> None:
    assert "--base" in cli.fails("compare", PACK, "movie")


def test_tensors_that_should_be_exact_but_differ_count_in_the_total(cli: Cli) -> None:
    base = {"head": torch.randn(3, 40), "still": torch.randn(30, 40), "weight": torch.randn(60, 40)}
    fine = base | {"weight": base["weight"] + 0.1 * torch.randn(60, 40)}
    save_file(base, "b.safetensors")
    save_file(fine, "f.safetensors")
    save_file(fine | {"still": base["still"] + 1}, "other.safetensors")
    cli("encode", "b.safetensors", "f.safetensors", "-o", "a", "--error", "0.5")
    right = cli.json("compare", "a", "f.safetensors", "--base", "b.safetensors")
    wrong = cli.json("compare", "a", "other.safetensors", "--base", "b.safetensors")
    still = next(tensor for tensor in wrong["tensors"] if tensor["name"] == "still")
    assert not still["exact"]
    assert still["relative_error"] == pytest.approx(1)
    assert wrong["relative_error"] > right["relative_error"]
