"""Cells and rows of the table."""

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.architectures.architecture import Architecture
from benchmarks.architectures.columns import COLUMNS, Figure
from benchmarks.architectures.decoders import DECODERS
from benchmarks.architectures.encoders import ENCODERS
from benchmarks.architectures.multimodal import MULTIMODAL
from benchmarks.architectures.workplace import Workplace
from dtscodec.errors import DtsError

ARCHITECTURES = {architecture.name: architecture for architecture in (*DECODERS, *MULTIMODAL, *ENCODERS)}
"""All architectures, by name."""


@dataclass(frozen=True)
class Cell:
    """The result of one column on one architecture.

    Parameters
    ----------
    state : {"right", "refused", "FAIL"}
        FAIL: a difference above the tolerance, or an exception that is not a `DtsError`.
    figure : float or None
        The measured value, if any.
    text : str
        The message of a refusal or failure, or a remark on the figure.
    """

    state: Literal["right", "refused", "FAIL"]
    figure: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Row:
    """All cells of an architecture, by column."""

    architecture: str
    kind: str
    cells: dict[str, Cell]
    seconds: float

    @property
    def failures(self) -> list[str]:
        """Cells that fail, in words."""
        return [
            f"{self.architecture}, {column}: {cell.text or cell.figure}"
            for column, cell in self.cells.items()
            if cell.state == "FAIL"
        ]


def check(architecture: Architecture) -> Row:
    """Return the row of an architecture."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(architecture, Path(folder))
        cells = {name: cell(column, place) for name, column in COLUMNS.items()}
    return Row(architecture.name, architecture.kind, cells, time.perf_counter() - start)


def cell(column: Callable[[Workplace], Figure], place: Workplace) -> Cell:
    """Return the cell of a column."""
    try:
        figure = column(place)
    except DtsError as error:
        return Cell("refused", text=_one_line(error, place))
    except Exception as error:  # Any exception of a library counts as a failure of dtscodec, which should have refused.
        return Cell("FAIL", text=f"{type(error).__name__}: {_one_line(error, place)}")
    if not figure.value <= figure.tolerance:
        return Cell("FAIL", figure.value, f"{figure.value:.1e} is above {figure.tolerance:g}")
    return Cell("right", figure.value, figure.note)


def _one_line(error: Exception, place: Workplace) -> str:
    """Return the message without folders of this run."""
    folders = rf"{re.escape(str(place.folder))}|{re.escape(tempfile.gettempdir())}/tmp[^/.:' ]+"
    return " ".join(re.sub(rf"({folders})(/|\b)", "", str(error)).split())
