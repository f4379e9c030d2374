"""Gradients by products with the factors, and of looked-up rows, are those of the whole weight's gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import dtscodec
from dtscodec.calibration.fitted_layers import can_be_fitted, fit_layer
from dtscodec.calibration.weight_gradients import WeightGradient
from dtscodec.decoding.reconstruct import LoadedTensor, load_tensors
from dtscodec.kernels.packed import Packed

ROWS, COLUMNS = 48, 40


def loaded(kind: str, folder: Path, **settings: Any) -> tuple[LoadedTensor, torch.Tensor]:
    """Return a coded weight of a kind, and a total of its gradients."""
    torch.manual_seed(0)
    delta = torch.randn(ROWS, COLUMNS)
    if kind == "subset":
        delta[::3] = 0
        delta[:, ::4] = 0
    base, fine = {"w": torch.zeros(ROWS, COLUMNS)}, {"w": delta}
    if kind == "values":
        delta[1:] = 0  # A single row is coded element by element.
    dtscodec.encode(base, fine, folder / "pack", dtscodec.EncodeConfig(**({"target": dtscodec.Rank(4)} | settings)))
    with dtscodec.open(folder / "pack") as pack:
        change = load_tensors(pack.reader, ["w"], torch.device("cpu"))["w"]
    packed = next(block.payload for block in change.blocks if isinstance(block.payload, Packed))
    return change, torch.zeros_like(packed.store.numbers)


KINDS = [
    ("matrix", {}),
    ("subset", {}),
    ("values", {}),
    ("matrix", {"preset": dtscodec.Paper("vector")}),
    ("matrix", {"target": dtscodec.MaxError(0.05)}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("count", [3, 500])
def test_products_with_the_factors_give_the_gradient_of_the_whole_weight(
    kind: str, settings: dict[str, Any], count: int, tmp_path: Path
) -> None:
    change, total = loaded(kind, tmp_path, **settings)
    x, dy = torch.randn(count, COLUMNS), torch.randn(count, ROWS)
    whole = torch.zeros_like(total)
    WeightGradient(change, whole, None).add(dy.T @ x)
    WeightGradient(change, total, None).add_product(x, dy)
    assert whole.abs().max() > 0
    torch.testing.assert_close(total, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_looked_up_rows_give_the_gradient_of_the_whole_weight(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    change, total = loaded(kind, tmp_path, **settings)
    ids, dy = torch.randint(0, ROWS, (30,)), torch.randn(30, COLUMNS)
    whole = torch.zeros_like(total)
    WeightGradient(change, whole, None).add(torch.zeros(ROWS, COLUMNS).index_add_(0, ids, dy))
    WeightGradient(change, total, None).add_rows(ids, dy)
    torch.testing.assert_close(total, whole, rtol=1e-3, atol=1e-3)


class Seen(WeightGradient):
    """Keeps the gradient of the whole weight."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.found = torch.zeros(shape)

    def add_product(self, x: torch.Tensor, dy: torch.Tensor) -> None:
        self.found += dy.T @ x

    def add_rows(self, ids: torch.Tensor, dy: torch.Tensor) -> None:
        self.found.index_add_(0, ids, dy)


@pytest.mark.parametrize("kind", ["linear", "transposed", "embedding"])
def test_a_fitted_layer_computes_what_it_did_and_gives_its_gradients_away(kind: str) -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    layers = {
        "linear": torch.nn.Linear(6, 5),
        "transposed": Conv1D(5, 6),  # type: ignore[no-untyped-call]
        "embedding": torch.nn.Embedding(6, 5, padding_idx=2),
    }
    layer: Any = layers[kind]
    x = torch.randint(0, 6, (2, 7)) if kind == "embedding" else torch.randn(2, 7, 6, requires_grad=True)
    out, dy = layer(x), torch.randn(2, 7, 5)
    named = [parameter for parameter in layer.parameters()] + ([] if kind == "embedding" else [x])
    expected = torch.autograd.grad(out, named, dy)
    seen = Seen(layer.weight.shape)
    assert can_be_fitted([(layer, "weight")])
    layer.weight.requires_grad_(False)
    fit_layer(layer, seen)
    again = layer(x)
    assert torch.equal(again, out)
    rest = torch.autograd.grad(again, named[1:], dy) if named[1:] else again.backward(dy)
    torch.testing.assert_close([seen.found, *(rest or [])], list(expected))


def test_other_layers_are_left_to_autograd() -> None:
    class Twice(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * F.linear(input, self.weight)

    linear = torch.nn.Linear(2, 2)
    assert not can_be_fitted([(Twice(2, 2), "weight")])
    assert not can_be_fitted([(linear, "bias")])
    assert not can_be_fitted([(linear, "weight"), (Twice(2, 2), "weight")])
