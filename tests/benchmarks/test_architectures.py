"""The table of architectures: which results fail, and how cells are shown."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.architectures import columns, page, table
from benchmarks.architectures.columns import Figure
from benchmarks.architectures.table import ARCHITECTURES, Cell, Row
from benchmarks.architectures.workplace import Workplace
from dtscodec.errors import CheckpointError


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(ARCHITECTURES["Llama"], tmp_path)


def raising(error: Exception) -> Callable[[Workplace], Figure]:
    def column(place: Workplace) -> Figure:
        raise error

    return column


def test_an_error_of_ours_is_a_refusal_and_any_other_a_failure(place: Workplace) -> None:
    refused = table.cell(raising(CheckpointError(f"{place.folder}/base/config.json: expected one")), place)
    assert refused == Cell("refused", text="base/config.json: expected one")
    assert table.cell(raising(KeyError("x")), place).state == "FAIL"


@pytest.mark.parametrize("value", [2e-4, float("inf"), float("nan")])
def test_a_difference_above_the_tolerance_fails(value: float, place: Workplace) -> None:
    assert table.cell(lambda place: Figure(value, 1e-4), place).state == "FAIL"
    assert table.cell(lambda place: Figure(1e-4, 1e-4), place).state == "right"


def test_outputs_of_another_shape_differ() -> None:
    assert columns.difference(torch.ones(2, 3), torch.ones(2, 4)) == float("inf")


def test_a_message_is_one_footnote_however_often_it_appears() -> None:
    cells = {name: Cell("refused", text="because") for name in columns.COLUMNS}
    row = Row("Llama", "dense decoder", cells | {"disk": Cell("right", 0.0)}, 1.0)
    where = {"date": "today", "machine": {"processor": "one", "cores": 2}, "versions": {"torch": "2"}}
    text = page.architectures_page([row], where)
    assert "| Llama | 0 | refused[^1] |" in text
    assert text.count("[^1]: `because`") == 1
    assert "[^2]" not in text
