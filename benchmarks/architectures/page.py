"""The table as a page: ``docs/architectures.md``."""

from collections.abc import Sequence
from typing import Any

from benchmarks.architectures.columns import COLUMNS
from benchmarks.architectures.table import Cell, Row
from benchmarks.common.markdown import markdown_table


class Footnotes:
    """Texts by number, in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """Return the mark of a text."""
        return f"[^{self._numbers.setdefault(text, len(self._numbers) + 1)}]"

    def __str__(self) -> str:
        return "\n".join(f"[^{number}]: {_code(text)}" for text, number in self._numbers.items())


def _code(text: str) -> str:
    """Return a text as a span of code, whether it has backticks or not."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def architectures_page(rows: Sequence[Row], environment: dict[str, Any]) -> str:
    """Return the page."""
    footnotes = Footnotes()
    table = markdown_table(
        ["architecture", *COLUMNS],
        [[row.architecture, *(_shown(row.cells[name], footnotes) for name in COLUMNS)] for row in rows],
    )
    return f"{HEAD}\n{table}\n\n{_where(environment)}\n\n{COLUMNS_TEXT}\n## Refusals\n\n{REFUSALS}\n{footnotes}\n"


def _shown(cell: Cell, footnotes: Footnotes) -> str:
    match cell.state:
        case "right":
            figure = "0" if cell.figure == 0 else f"{cell.figure:.0e}".replace("e-0", "e-")
            return f"{figure}, {cell.text}" if cell.text else figure
        case "refused":
            return "refused" + footnotes.mark(cell.text)
        case "FAIL":
            return "**FAIL**" + footnotes.mark(cell.text)


def _where(environment: dict[str, Any]) -> str:
    machine, versions = environment["machine"], environment["versions"]
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "dtscodec")
    return f"{environment['date']}: {machine['processor']}, {machine['cores']} cores; {libraries}."


HEAD = """\
# Architectures

All functions of dtscodec on small models (two layers, random weights, float32) that their own libraries build, save
and load. Printed by `python -m benchmarks.architectures`; the tests check one architecture of each class.

A figure is the largest difference of outputs, divided by the largest output, between the model that dtscodec gives and
the decoded tensors, written by safetensors and loaded by the model's library. `refused` is an error of dtscodec, before
anything is changed.
"""

COLUMNS_TEXT = """\
## Columns

- **disk**: `save_pretrained` of base and fine-tune, `encode` at half the size, `decode` to a directory. Names,
  dtypes and shapes are the fine-tune's, the library loads the directory without missing or unexpected tensors, and the
  outputs are those of the decoded tensors. The figure is the relative error of the weights.
- **from_pretrained**: `dtscodec.from_pretrained(base, pack)`.
- **apply_**, **Switcher**: in a model that its library loaded from the base. `Switcher` also goes back: every tensor
  must be the base's bit for bit.
- **attach**: a batch of one row of the task and one of the base. The task changes five in six of all tensors.
- **attach, linear layers**: the same, where the task changes the weights of linear layers only.
- **export**: the base with the exported adapter, loaded by PEFT. Tensors that the export lists as left out have the
  base's values on both sides; their share of the delta's squared norm is in the cell. Factors are in half precision.
  A model of diffusers is given to the export (`model=`).
- **import**: an adapter that PEFT saved, imported, decoded and loaded, against the model that PEFT merges, saves and
  loads. Factors are in half precision.
"""
REFUSALS = "The messages:\n"
