"""Rows of results on disk, a JSON line each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.json_lines import append_record, read_records


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one method on one task.

    Parameters
    ----------
    part
        Of the benchmark.
    name, setting
        What was measured, and how it was set.
    task
        A task, or nothing where a row is about all of them.
    figures
        By what they are: `accuracy`, `agreement`, `kl`, `bytes`, `seconds` and others.
    """

    part: str
    name: str
    setting: str
    task: str
    figures: dict[str, float]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The fields that identify a row."""
        return self.part, self.name, self.setting, self.task


class Rows:
    """Rows to look up.

    >>> rows = Rows([Row("bases", "average", "", task, {"accuracy": a}) for task, a in (("x", 0.5), ("y", 0.7))])
    >>> round(rows.mean("bases", "average", "", ["x", "y"], "accuracy"), 3), rows.has("bases", "ties", "", "x")
    (0.6, False)
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {row.key: row for row in rows}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def has(self, part: str, name: str, setting: str, *tasks: str) -> bool:
        """Return whether there are rows for all these tasks."""
        return all((part, name, setting, task) in self._rows for task in tasks)

    def figures(self, part: str, name: str, setting: str, task: str) -> dict[str, float]:
        """The figures of a row that is there."""
        return self._rows[part, name, setting, task].figures

    def mean(self, part: str, name: str, setting: str, tasks: Iterable[str], figure: str) -> float:
        """Mean of a figure over tasks."""
        values = [self.figures(part, name, setting, task)[figure] for task in tasks]
        return sum(values) / len(values)

    def of(self, part: str) -> list[Row]:
        """All rows of a part."""
        return [row for row in self if row.part == part]

    def names(self, part: str, setting: str | None = None) -> list[str]:
        """Names in a part, at one setting or all, in the order that they came in."""
        found = (row.name for row in self.of(part) if setting is None or row.setting == setting)
        return list(dict.fromkeys(found))

    def put(self, row: Row) -> None:
        """Add a row, or replace it."""
        self._rows[row.key] = row


class RowLog(Rows):
    """Rows in a file that grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(read_records(path, Row))
        self._path = path

    def put(self, row: Row) -> None:
        """Add a row to the file."""
        super().put(row)
        append_record(self._path, row)
        print(_line(row), flush=True)


def _line(row: Row) -> str:
    """A row for the screen.

    >>> _line(Row("bases", "ties", "", "nyt", {"accuracy": 0.75, "bytes": 3}))
    'bases, ties, nyt: accuracy 0.75, bytes 3'
    """
    figures = ", ".join(f"{name} {value:.6g}" for name, value in row.figures.items())
    return f"{', '.join(filter(None, row.key))}: {figures}"


def rows_of(document: Iterable[dict[str, Any]]) -> Rows:
    """The rows of a ``result.json``; the inverse of `asdict` for each."""
    return Rows(Row(**row) for row in document)
